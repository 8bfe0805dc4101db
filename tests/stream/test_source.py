"""Streams over real encoded clips: batches, shares of workers, quarantine, Ray Data."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.media.audio import log_mel
from mien.media.decode import decode_clip
from mien.stream.loaders import load_step
from mien.stream.order import StreamError
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien_models.contract import AudioSpec, Augmentation, StreamSpec, ViewSpec

LABELS = LabelSet(name="three", classes=("happiness", "sadness", "anger"))
AUGMENTED = Augmentation(
    min_crop_area=0.5, flip_probability=0.5, brightness=0.4, audio_gain_db=6.0, spec_time_mask=5
)
SPEC = StreamSpec(
    split="all",
    batch_size=6,
    views=(
        ViewSpec(num_frames=3, sampling="random_segments", augmentation=AUGMENTED),
        ViewSpec(num_frames=3, same_frames_as=0),
    ),
    image_size_px=32,
    align_faces=False,
    audio=AudioSpec(num_frames=64, num_mels=32),
    action_units=("AU12", "AU99"),
)


def everyone(manifest: Manifest) -> Split:
    return Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))


def open_source(manifest: Manifest, **options) -> ClipSource:
    return ClipSource(manifest, everyone(manifest), LABELS, seed=1, **options)


def same(a, b) -> bool:
    """Whether two batches are equal to the last bit (NaN equals NaN)."""
    tensors: list[list[torch.Tensor]] = [[], []]
    for batch, found in zip((a, b), tensors, strict=True):
        batch.map_tensors(lambda t, found=found: found.append(t) or t)
    return a.clip_ids == b.clip_ids and all(
        torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) for x, y in zip(*tensors, strict=True)
    )


@pytest.fixture(scope="module")
def manifest(synth_manifest: Path) -> Manifest:
    return Manifest.read(str(synth_manifest))


def test_a_batch_holds_what_the_stream_asked_for(manifest):
    batch = next(open_source(manifest).batches(SPEC, start_step=0, num_steps=1))
    assert [tuple(view.video_BTCHW.shape) for view in batch.views] == [(6, 3, 3, 32, 32)] * 2
    assert batch.video_BTCHW.dtype == torch.uint8
    assert batch.audio_BFM.shape == (6, 64, 32)
    assert batch.has_audio_B.all()
    labels = [manifest.by_ids([clip_id]).ref(0).label for clip_id in batch.clip_ids]
    assert [LABELS.classes[i] for i in batch.label_B.tolist()] == labels
    assert torch.equal(batch.soft_label_BK.argmax(1), batch.label_B)
    assert torch.equal(batch.views[0].frame_times_BT, batch.views[1].frame_times_BT)
    assert not torch.equal(batch.views[0].video_BTCHW, batch.views[1].video_BTCHW)
    assert batch.action_units_BTU[..., 0].isfinite().all()
    assert batch.action_units_BTU[..., 1].isnan().all()


def test_action_units_belong_to_the_frames_shown(manifest):
    batch = next(open_source(manifest).batches(SPEC, start_step=0, num_steps=1))
    row = 0
    clip = manifest.by_ids([batch.clip_ids[row]])
    curve = dict(clip.table["action_units"][0].as_py())["AU12"]
    frames = (batch.views[0].frame_times_BT[row] * 25).round().int().tolist()
    expected = torch.tensor([curve[frame] for frame in frames])
    torch.testing.assert_close(batch.action_units_BTU[row, :, 0], expected)


def test_streams_are_reproducible_and_start_anywhere(manifest):
    whole = list(open_source(manifest).batches(SPEC, start_step=0, num_steps=8))
    late = list(open_source(manifest).batches(SPEC, start_step=5, num_steps=3))
    assert all(same(a, b) for a, b in zip(whole[5:], late, strict=True))
    assert whole[0].clip_ids != whole[6].clip_ids  # another epoch, another order


def test_augmentation_differs_between_epochs_but_not_between_frames(manifest):
    only_flip = Augmentation(flip_probability=0.5)
    view = ViewSpec(num_frames=2, augmentation=only_flip)
    spec = dataclasses.replace(SPEC, views=(view, ViewSpec(num_frames=2)), batch_size=36)
    epochs = list(open_source(manifest).batches(spec, start_step=0, num_steps=2))
    flips = []
    for batch in epochs:
        changed, plain = (v.video_BTCHW for v in batch.views)
        is_same_BT = (changed == plain).flatten(2).all(2)
        is_flipped_BT = (changed == plain.flip(-1)).flatten(2).all(2)
        assert (is_same_BT | is_flipped_BT).all()
        assert torch.equal(is_flipped_BT[:, 0], is_flipped_BT[:, 1])
        flips.append(dict(zip(batch.clip_ids, is_flipped_BT[:, 0].tolist(), strict=True)))
    assert 5 < sum(flips[0].values()) < 31
    assert flips[0] != flips[1]


def test_two_workers_see_the_batches_of_one(manifest):
    one = list(open_source(manifest).batches(SPEC, start_step=0, num_steps=3))
    two = [
        list(
            open_source(manifest, rank=rank, world_size=2).batches(SPEC, start_step=0, num_steps=3)
        )
        for rank in range(2)
    ]
    for step, batch in enumerate(one):
        assert same(batch.rows(0, 3), two[0][step])
        assert same(batch.rows(3, 6), two[1][step])
    scans = [list(open_source(manifest, rank=r, world_size=2).scan(SPEC)) for r in range(2)]
    ids = sorted(clip_id for scan in scans for batch in scan for clip_id in batch.clip_ids)
    assert ids == sorted(manifest.column("clip_id"))


def test_a_batch_size_that_workers_cannot_share_is_refused(manifest):
    source = open_source(manifest, rank=0, world_size=4)
    with pytest.raises(StreamError, match="multiple of their number, 4"):
        source.batches(SPEC, start_step=0, num_steps=1)


def test_rows_have_the_same_bits_whatever_the_number_of_threads(tmp_path):
    # Sums over four seconds of sound are what torch divides among its threads.
    long = SynthSpec(
        num_subjects=1, classes=("anger",), size_px=32, duration_s=4.0, supersample=False
    )
    manifest = Manifest.read(str(write_dataset(long, tmp_path, num_workers=0)))
    spec = dataclasses.replace(SPEC, batch_size=1, audio=AudioSpec(), action_units=())
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(next(open_source(manifest).scan(spec)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert same(*found)


@pytest.mark.ray
def test_ray_data_gives_the_same_batches_in_the_same_order(manifest, local_ray):
    from mien.stream.ray_executor import RayExecutor

    executor = RayExecutor(tasks=2, cpus_per_task=1)
    plain = list(open_source(manifest).batches(SPEC, start_step=3, num_steps=12))
    ray = list(open_source(manifest, executor=executor).batches(SPEC, start_step=3, num_steps=12))
    assert len(ray) == 12
    assert all(same(a, b) for a, b in zip(plain, ray, strict=True))
    scans = [list(open_source(manifest, executor=e).scan(SPEC)) for e in (executor,)]
    assert sum(len(batch) for batch in scans[0]) == len(manifest)


def break_clips(manifest: Manifest, folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Replaces some clips' files by broken ones; returns the reasons expected."""
    rows = [
        {"clip_id": ref.clip_id, "uri": ref.uri, "label": ref.label, "subject_id": ref.subject_id}
        for ref in manifest
    ]
    text, empty = folder / "text.mp4", folder / "empty.mp4"
    text.write_text("this is no video at all\n" * 50)
    empty.write_bytes(b"")
    broken = {
        0: (str(folder / "nowhere.mp4"), "missing_file"),
        4: (str(text), "not_a_video"),
        8: (str(empty), "empty_file"),
    }
    for index, (uri, _) in broken.items():
        rows[index]["uri"] = uri
    reasons = {rows[index]["clip_id"]: reason for index, (_, reason) in broken.items()}
    return Manifest.from_rows(rows), reasons


def test_broken_clips_are_counted_named_and_replaced_by_their_class(manifest, tmp_path):
    broken, reasons = break_clips(manifest, tmp_path)
    spec = dataclasses.replace(SPEC, action_units=())
    source = open_source(broken)
    batches = list(source.batches(spec, start_step=0, num_steps=6))
    assert all(len(batch) == 6 for batch in batches)
    shown = [clip_id for batch in batches for clip_id in batch.clip_ids]
    assert not set(shown) & set(reasons)
    assert {clip.clip_id: clip.reason for clip in source.quarantine.clips} == reasons
    clean = open_source(manifest).batches(spec, start_step=0, num_steps=6)
    for batch, planned in zip(batches, clean, strict=True):
        assert torch.equal(batch.label_B, planned.label_B)

    source.quarantine.write(str(tmp_path / "quarantine.csv"))
    with (tmp_path / "quarantine.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["clip_id"]: row["reason"] for row in rows} == reasons
    assert source.quarantine.summary().startswith("quarantine: 3 clips (")


def test_a_plain_pass_leaves_broken_clips_out_and_lists_them(manifest, tmp_path):
    broken, reasons = break_clips(manifest, tmp_path)
    spec = dataclasses.replace(SPEC, action_units=())
    source = open_source(broken)
    seen = [clip_id for batch in source.scan(spec) for clip_id in batch.clip_ids]
    assert sorted(seen) == sorted(set(broken.column("clip_id")) - set(reasons))
    assert {clip.clip_id: clip.reason for clip in source.quarantine.clips} == reasons


def test_a_plain_pass_is_decoded_once_while_it_fits_in_memory(manifest):
    calls = []

    def counting(loader, steps):
        for step in steps:
            calls.append(step)
            yield load_step(loader, step)

    source = open_source(manifest, executor=counting)
    first, second = list(source.scan(SPEC)), list(source.scan(SPEC))
    assert len(calls) == 6
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    small = open_source(manifest, executor=counting, keep_bytes=100_000)
    assert len(list(small.scan(SPEC))) == len(list(small.scan(SPEC))) == 6
    assert len(calls) == 18


def test_nothing_but_broken_clips_stops_with_the_reason(tmp_path):
    rows = [
        {"clip_id": f"c{i}", "uri": str(tmp_path / f"{i}.mp4"), "label": "anger"} for i in range(9)
    ]
    source = open_source(Manifest.from_rows(rows))
    spec = dataclasses.replace(SPEC, action_units=())
    with pytest.raises(StreamError, match=r"9 clips in a row could not be decoded; the last: "):
        next(source.batches(spec, start_step=0, num_steps=1))


def test_streams_filter_by_split_label_and_id(manifest):
    ids = manifest.column("clip_id")
    split = Split(name="s", train=tuple(ids[:20]), val=tuple(ids[20:25]), test=tuple(ids[25:]))
    source = ClipSource(manifest, split, LABELS, seed=0)
    train = dataclasses.replace(SPEC, split="train")
    assert source.num_clips(train) == 20
    assert source.num_clips(dataclasses.replace(train, split="val")) == 5
    anger = dataclasses.replace(train, labels=("anger",))
    expected = sum(ref.label == "anger" for ref in manifest.by_ids(ids[:20]))
    assert source.num_clips(anger) == expected
    chosen = dataclasses.replace(train, clip_ids=(ids[1], ids[30]))
    assert source.num_clips(chosen) == 1
    assert source.num_clips(dataclasses.replace(train, labelled=False)) == 0


def test_clips_of_one_source_stand_side_by_side(manifest):
    spec = dataclasses.replace(SPEC, batch_size=4, clips_per_source=2)
    plain = {
        clip_id: batch.rows(place, place + 1)
        for batch in open_source(manifest).batches(
            dataclasses.replace(SPEC, batch_size=1), start_step=0, num_steps=len(manifest)
        )
        for place, clip_id in enumerate(batch.clip_ids)
    }
    assert len(plain) == len(manifest)
    for batch in open_source(manifest).batches(spec, start_step=0, num_steps=3):
        sources = [ref.source for ref in manifest.by_ids(list(batch.clip_ids))]
        assert sources[0] == sources[1]
        assert sources[2] == sources[3]
        assert len(set(batch.clip_ids)) == 4
        for place, clip_id in enumerate(batch.clip_ids):
            alone = plain[clip_id]
            assert torch.equal(batch.video_BTCHW[place], alone.video_BTCHW[0])
            assert batch.label_B[place] == alone.label_B[0]


def test_native_sound_is_heard_at_its_own_rate(manifest):
    spec = dataclasses.replace(SPEC, audio=AudioSpec(num_frames=64, num_mels=32, sound="native"))
    batch = next(open_source(manifest).scan(spec))
    ref = next(iter(manifest.by_ids([batch.clip_ids[0]])))
    sound = decode_clip(ref.uri, choose_frames=lambda num: [0], sample_rate_hz=None)
    assert sound.sample_rate_hz == 22_050
    expected = log_mel(sound.audio, sample_rate_hz=22_050, num_mels=32)
    valid = int(batch.audio_frames_B[0])
    assert valid == len(expected)
    normalised = (expected - spec.audio.mean) / (2 * spec.audio.std)
    assert np.allclose(batch.audio_BFM[0, :valid], normalised, atol=1e-6)


def test_audio_is_padded_after_normalisation_and_marked(manifest):
    spec = dataclasses.replace(SPEC, audio=AudioSpec(num_frames=200, num_mels=32))
    batch = next(open_source(manifest).scan(spec))
    valid = int(batch.audio_frames_B[0])
    assert 50 < valid < 62  # 0.6 s at 10 ms, less the last window
    assert np.allclose(batch.audio_BFM[0, valid:], 0)
    assert batch.audio_BFM[0, :valid].abs().sum() > 0
