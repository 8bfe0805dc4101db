"""What is read from a cache against what is decoded anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from cache_cases import (
    LOSSLESS,
    SPEC,
    differences,
    load,
    open_source,
    plan_of,
    settings_of,
)

from mien.cache import pieces
from mien.cache.build import build, frames_kept
from mien.cache.settings import StoredAs
from mien.cache.store import ClipCache
from mien.clips.manifest import ClipRef
from mien.media.decode import decode_clip
from mien.stream.plan import DEFAULT
from mien_models.contract import AudioSpec, Augmentation, StreamSpec, ViewSpec

AUGMENTED = Augmentation(
    min_crop_area=0.5, flip_probability=0.5, brightness=0.4, audio_gain_db=6.0, spec_time_mask=5
)
FACES = dataclasses.replace(
    SPEC,
    align_faces=True,
    image_size_px=48,
    views=(
        ViewSpec(num_frames=4, sampling="random_segments", augmentation=AUGMENTED),
        ViewSpec(num_frames=4, same_frames_as=0),
        ViewSpec(num_frames=3, sampling="segments"),
        ViewSpec(num_frames=5, sampling="paper_train"),
        ViewSpec(num_frames=3, sampling="window", stride_frames=2),
    ),
    action_units=("AU12",),
)


NATIVE = dataclasses.replace(
    SPEC, audio=AudioSpec(num_frames=64, num_mels=32, sound="native"), picture_order="text"
)


@pytest.mark.parametrize(
    "spec", [SPEC, FACES, NATIVE], ids=["whole pictures", "aligned faces", "native sound"]
)
def test_epochs_are_the_same_to_the_last_bit(spec: StreamSpec, clips, refs, cache):
    settings = settings_of(spec)
    assert build(cache, refs, settings).cached == len(refs)
    cached = open_source(clips, plan_of(cache, refs, settings)).batches(
        spec, start_step=0, num_steps=4
    )
    decoded = open_source(clips, DEFAULT).batches(spec, start_step=0, num_steps=4)
    for batch, expected in zip(cached, decoded, strict=True):
        assert batch.clip_ids == expected.clip_ids
        assert expected.views[0].has_face_BT.all()  # else the two may differ
        tensors: list[bytes] = []
        expected.map_tensors(lambda t, found=tensors: found.append(t.numpy().tobytes()) or t)
        batch.map_tensors(lambda t, found=tensors: found.remove(t.numpy().tobytes()) or t)
        assert tensors == []


def test_jpeg_changes_pictures_a_little_and_nothing_else(refs, cache):
    settings = settings_of(stored_as=StoredAs(image_format="jpeg"))
    build(cache, refs, settings)
    plan = plan_of(cache, refs, settings)
    errors = []
    for ref in refs:
        row, expected = load(ref, plan), load(ref, DEFAULT)
        assert set(differences(row, expected)) == {"view0/video"}
        seen = np.asarray(row["view0/video"], dtype=float)
        errors.append(np.abs(seen - np.asarray(expected["view0/video"], dtype=float)).mean())
    assert 0 < max(errors) < 2.0


def test_fewer_kept_frames_are_evenly_spaced_and_all_that_samplers_see(refs, cache):
    assert frames_kept(15, 5) == [1, 4, 7, 10, 13]  # middles of 5 parts of 3
    assert frames_kept(4, 5) == [0, 1, 2, 3]
    settings = settings_of(stored_as=StoredAs(image_format="png", max_frames=5))
    build(cache, refs[:1], settings)
    spec = dataclasses.replace(SPEC, views=(ViewSpec(num_frames=5),))
    row = load(refs[0], plan_of(cache, refs[:1], settings), spec)
    assert np.allclose(row["view0/times"], np.array([1, 4, 7, 10, 13]) / 25)
    everything = dataclasses.replace(SPEC, views=(ViewSpec(num_frames=15),))
    pictures = np.asarray(load(refs[0], DEFAULT, everything)["view0/video"])
    assert np.array_equal(row["view0/video"], pictures[[1, 4, 7, 10, 13]])


def strip_sound(uri: str, to: Path) -> str:
    with av.open(uri) as source, av.open(str(to), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return str(to)


def frame_folder(uri: str, folder: Path) -> str:
    folder.mkdir()
    clip = decode_clip(uri, choose_frames=range, with_audio=False)
    for number, frame in enumerate(clip.frames_THWC):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return str(folder)


def test_every_kind_of_clip_comes_back_as_it_was(refs, cache, tmp_path):
    first, second = refs[0].uri, refs[1].uri
    kinds = [
        ClipRef(clip_id="silent", uri=strip_sound(first, tmp_path / "silent.mp4")),
        ClipRef(clip_id="window", uri=first, start_s=0.1, end_s=0.4),
        ClipRef(clip_id="other sound", uri=first, audio_uri=second),
        ClipRef(clip_id="pictures", uri=frame_folder(first, tmp_path / "frames")),
        ClipRef(clip_id="pictures and sound", uri=str(tmp_path / "frames"), audio_uri=second),
    ]
    build(cache, kinds, settings_of())
    plan = plan_of(cache, kinds, settings_of())
    for ref in kinds:
        assert ref.clip_id in plan.cache.held[settings_of()].places
        assert differences(load(ref, plan), load(ref, DEFAULT)) == {}
    assert load(kinds[0], plan)["has_audio"] is False
    assert load(kinds[4], plan)["has_audio"] is True


@pytest.mark.parametrize("spec", [SPEC, FACES], ids=["whole pictures", "aligned faces"])
def test_long_clips_are_prepared_piece_by_piece(spec: StreamSpec, refs, cache, monkeypatch):
    settings = settings_of(spec)
    held: list[int] = []
    real = pieces.decode

    def counting(*arguments):
        clip = real(*arguments)
        held.append(len(clip.frames_THWC))
        return clip

    monkeypatch.setattr(pieces, "decode", counting)
    monkeypatch.setattr(pieces, "ONE_PIECE", 4)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 64 * 64 * 3 * 6)
    build(cache, refs[:2], settings)
    passes = 2 if spec.align_faces else 1
    assert held == [4, 6, 5] * passes * 2
    plan = plan_of(cache, refs[:2], settings)
    for ref in refs[:2]:
        assert differences(load(ref, plan, spec), load(ref, DEFAULT, spec)) == {}


def test_a_long_clip_without_a_face_shows_the_centre(refs, tmp_path, cache, monkeypatch):
    grey = tmp_path / "grey"
    grey.mkdir()
    for number in range(6):
        cv2.imwrite(str(grey / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    ref = ClipRef(clip_id="grey", uri=str(grey))
    monkeypatch.setattr(pieces, "ONE_PIECE", 4)
    build(cache, [ref], settings_of(FACES))
    plan = plan_of(cache, [ref], settings_of(FACES))
    row = load(ref, plan, FACES)
    assert differences(row, load(ref, DEFAULT, FACES)) == {}
    assert not np.any(row["view0/has_face"])


def test_only_the_wanted_frames_are_decompressed(refs, cache, monkeypatch):
    build(cache, refs[:1], settings_of())
    plan = plan_of(cache, refs[:1], settings_of())
    seen = []
    monkeypatch.setattr(cv2, "imdecode", lambda *a, real=cv2.imdecode: seen.append(a) or real(*a))
    load(refs[0], plan)
    assert len(seen) == 4


def test_a_stream_with_other_crops_decodes_them_itself(refs, filled):
    plan = plan_of(filled, refs, settings_of())
    larger = dataclasses.replace(SPEC, image_size_px=40)
    assert differences(load(refs[0], plan, larger), load(refs[0], DEFAULT, larger)) == {}


def test_a_cache_in_another_storage(clips, refs):
    cache = ClipCache.open("memory://clips/cache", create=True)
    build(cache, refs, settings_of())
    again = ClipCache.open("memory://clips/cache")
    plan = plan_of(again, refs, settings_of())
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs)
    assert again.forget([refs[0].clip_id]) == 1
    assert build(again, refs, settings_of(stored_as=LOSSLESS)).cached == 1
