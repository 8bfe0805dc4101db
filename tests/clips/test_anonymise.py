"""Copies that are fit for sharing: decoded again and searched for what must not be in them.

The clip has two people side by side, a title, a place and a voice of 150 Hz.
"""

from __future__ import annotations

import json
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mien.clips import anonymise_clip
from mien.clips.anonymise import AnonymousClips, CopyOptions, anonymise_clips
from mien.clips.anonymise_clip import anonymous_copy, encode_mp4
from mien.clips.anonymise_ids import AnonymiseError
from mien.clips.anonymise_sound import shift_pitch
from mien.clips.manifest import Manifest, ManifestError
from mien.media.decode import DecodedClip, decode_clip
from mien.media.faces import FaceDetector, align_clip
from mien_jobs.verbs import clips

HEIGHT, WIDTH, NUM_FRAMES, FPS = 160, 321, 12, 25
SIDE = 120
PERSON, OTHER = (30, 20), (190, 24)
"""Left upper corners; the person is the larger one."""
VOICE_HZ, RATE_HZ = 150.0, 44_100
SECRETS = ("anna_karenina", "rec-0815", "Studio Nord", "diary of anna", "+48.1+011.5")


def voice(duration_s: float, rate_hz: int) -> np.ndarray:
    """A hum with many overtones, on and off twice a second."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    hum = sum(np.sin(2 * np.pi * VOICE_HZ * k * times) / k for k in range(1, 12))
    return (0.15 * hum * (times % 0.5 < 0.35)).astype(np.float32)


def pitch_hz(sound: np.ndarray, rate_hz: int) -> float:
    """Fundamental frequency by autocorrelation, of the loud part at the beginning."""
    piece = sound[round(0.02 * rate_hz) : round(0.3 * rate_hz)].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(piece, 2 * len(piece))) ** 2
    likeness = np.fft.irfft(spectrum)
    shortest, longest = rate_hz // 400, rate_hz // 70
    return rate_hz / (shortest + int(np.argmax(likeness[shortest:longest])))


def all_frames(location: Path | str, **options: Any) -> DecodedClip:
    return decode_clip(str(location), choose_frames=lambda n: list(range(n)), **options)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def source(synth_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of a film with two people, frames at uneven times, tags, and odd sides."""
    folder = tmp_path_factory.mktemp("anna_karenina")
    films = sorted(synth_manifest.parent.rglob("*.mp4"))
    people = [all_frames(film, with_audio=False).frames_THWC for film in (films[0], films[6])]
    write_film(folder / "rec-0815.mkv", people)
    write_film(folder / "rec-0816.mkv", people[::-1], with_sound=False)
    common = {
        "subject_id": "anna_karenina",
        "source": "rec-0815",
        "label": "happiness",
        "soft_label": {"happiness": 0.75, "anger": 0.25},
        "fold": 2,
        "split": "train",
        "licence": "CC-BY-4.0",
        "room": "Studio Nord",
        "age": 31,
        "note": "diary of anna_karenina, day 3",
    }
    rows = [
        {"clip_id": "anna_karenina-1", "uri": "rec-0815.mkv", **common},
        {
            "clip_id": "anna_karenina-2",
            "uri": "rec-0816.mkv",
            **common,
            "face_box": [WIDTH - 150.0, 10, WIDTH - 10.0, 150],
        },
        {"clip_id": "rec-0815-cut", "uri": "rec-0815.mkv", "start_s": 0.2, "end_s": 0.4, **common},
    ]
    Manifest.from_rows(rows).write(str(folder / "manifest.parquet"))
    return folder / "manifest.parquet"


def write_film(path: Path, people: list[np.ndarray], *, with_sound: bool = True) -> None:
    rng = np.random.default_rng(3)
    wall = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        container.metadata.update(title="diary of anna_karenina", location="+48.1+011.5/")
        video = container.add_stream("libx264", rate=FPS, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono") if with_sound else None
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(voice(1.0, RATE_HZ)[None], "fltp", "mono")
            sound.sample_rate, sound.pts = RATE_HZ, 0
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
        for number in range(NUM_FRAMES):
            picture = wall.copy()
            for film, (left, top), side in zip(
                people, (PERSON, OTHER), (SIDE, SIDE - 12), strict=True
            ):
                face = cv2.resize(film[number % len(film)], (side, side))
                picture[top : top + side, left + number : left + number + side] = face
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number * 40 + 7 * (number % 3), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def run(source: Path, folder: Path, **options: Any) -> AnonymousClips:
    return anonymise_clips(
        Manifest.read(str(source)),
        str(folder / "shared"),
        mapping=str(folder / "mapping.json"),
        options=CopyOptions(**options),
        num_threads=2,
    )


@pytest.fixture(scope="module")
def as_video(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnonymousClips]:
    folder = tmp_path_factory.mktemp("video")
    return folder, run(source, folder, form="video", sound="pitch_shift")


@pytest.fixture(scope="module")
def as_crops(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnonymousClips]:
    folder = tmp_path_factory.mktemp("crops")
    return folder, run(source, folder, form="crops", sound="keep", size_px=96)


def copy_of(made: tuple[Path, AnonymousClips], old: str) -> str:
    folder, result = made
    names = json.loads((folder / "mapping.json").read_text())["old_names"]["clip"]
    new = next(new for new, clip_id in names.items() if clip_id == old)
    assert result.manifest is not None
    return result.manifest.by_ids([new]).ref(0).uri


def test_the_face_stays_and_everything_else_is_gone(
    source: Path, as_video: tuple[Path, AnonymousClips], detector: FaceDetector
) -> None:
    before = all_frames(source.parent / "rec-0815.mkv")
    after = all_frames(copy_of(as_video, "anna_karenina-1"))
    assert after.frames_THWC.shape == (NUM_FRAMES, HEIGHT, WIDTH - 1, 3)
    np.testing.assert_allclose(after.frame_times_s, before.frame_times_s, atol=1e-4)
    for number, (old, new) in enumerate(zip(before.frames_THWC, after.frames_THWC, strict=True)):
        people = sorted(detector.detect(old), key=lambda face: face.box[0])
        assert len(people) == 2
        (found,) = detector.detect(new)
        np.testing.assert_allclose(found.landmarks, people[0].landmarks, atol=4.0)
        left = OTHER[0] + number
        hidden = new[:, left:].astype(float)
        assert old[:, left:].astype(float).std() > 40
        # Within the cells (40 px) nothing is left but what the encoder adds.
        cells = [
            hidden[top + 4 : top + 36, column + 4 - left : column + 36 - left]
            for top in range(0, HEIGHT, 40)
            for column in range((left // 40 + 1) * 40, WIDTH - 40, 40)
        ]
        assert max(cell.std(axis=(0, 1)).max() for cell in cells) < 4
        # The face's own pixels: 3 after two rounds of H.264, 11 if two pixels off, 26 if hidden.
        (x, y), margin = PERSON, SIDE // 6
        inner = np.s_[
            y + margin : y + SIDE - margin, x + number + margin : x + number + SIDE - margin
        ]
        assert np.abs(old[inner].astype(int) - new[inner]).mean() < 5


def test_crops_show_the_face_alone(
    source: Path, as_crops: tuple[Path, AnonymousClips], detector: FaceDetector
) -> None:
    before = all_frames(source.parent / "rec-0815.mkv")
    after = all_frames(copy_of(as_crops, "anna_karenina-1"))
    expected = align_clip(before.frames_THWC, size_px=96, detector=detector)
    assert after.frames_THWC.shape == (NUM_FRAMES, 96, 96, 3)
    np.testing.assert_allclose(after.frame_times_s, before.frame_times_s, atol=1e-4)
    assert np.abs(after.frames_THWC.astype(int) - expected.crops_TSSC).mean() < 5


def test_a_cut_is_copied_alone_and_silence_stays_silence(
    source: Path, as_crops: tuple[Path, AnonymousClips]
) -> None:
    before = all_frames(source.parent / "rec-0815.mkv", start_s=0.2, end_s=0.4)
    after = all_frames(copy_of(as_crops, "rec-0815-cut"))
    assert len(after.frames_THWC) == len(before.frames_THWC) == 5
    np.testing.assert_allclose(
        after.frame_times_s, before.frame_times_s - before.frame_times_s[0], atol=1e-4
    )
    assert after.audio is not None
    assert after.duration_s < 0.3
    assert all_frames(copy_of(as_crops, "anna_karenina-2")).audio is None


def test_no_tag_is_left(source: Path, as_video: tuple[Path, AnonymousClips]) -> None:
    with av.open(str(source.parent / "rec-0815.mkv")) as container:
        assert container.metadata["title"] == "diary of anna_karenina"
    for film in (as_video[0] / "shared").rglob("*.mp4"):
        data = film.read_bytes()
        for tag in (b"Lavf", b"Lavc", b"x264", b"\xa9too", b"\xa9nam", b"Studio"):
            assert tag not in data, tag
        with av.open(str(film)) as container:
            assert set(container.metadata) == {"major_brand", "minor_version", "compatible_brands"}
            for stream in container.streams:
                assert set(stream.metadata) <= {"language", "handler_name"}


def test_old_names_are_nowhere(as_video: tuple[Path, AnonymousClips]) -> None:
    folder, _ = as_video
    files = [path for path in (folder / "shared").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        for secret in SECRETS:
            assert secret not in str(path.relative_to(folder))
            assert secret.encode() not in path.read_bytes()
    # Parquet compresses: look at the values, too.
    shared = Manifest.read(str(folder / "shared"))
    assert not any(secret in str(shared.table.to_pylist()) for secret in SECRETS)


def test_rows_keep_labels_and_get_new_names(
    source: Path, as_video: tuple[Path, AnonymousClips]
) -> None:
    folder, result = as_video
    old, shared = Manifest.read(str(source)), Manifest.read(str(folder / "shared"))
    assert result.manifest is not None
    assert shared.content_hash() == result.manifest.content_hash()
    assert (len(shared), result.num_made, result.left_out) == (3, 3, {})
    assert set(shared.table.column_names) == set(old.table.column_names) - {"room", "age", "note"}
    assert shared.column("clip_id") == sorted(shared.column("clip_id"))
    assert shared.column("uri") == [f"clips/{name}.mp4" for name in shared.column("clip_id")]
    for name in ("label", "soft_label", "fold", "split", "licence", "consent"):
        assert shared.column(name) == old.column(name)
    for name in ("audio_uri", "start_s", "end_s", "face_box"):
        assert shared.column(name) == [None] * 3
    assert len(set(shared.column("subject_id"))) == len(set(shared.column("source"))) == 1
    assert sorted(shared.column("num_frames")) == [5, NUM_FRAMES, NUM_FRAMES]


def test_the_mapping_leads_back_and_is_its_owner_s_alone(
    source: Path, as_video: tuple[Path, AnonymousClips], as_crops: tuple[Path, AnonymousClips]
) -> None:
    path = as_video[0] / "mapping.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names = json.loads(path.read_text())["old_names"]
    shared = Manifest.read(str(as_video[0] / "shared"))
    old = Manifest.read(str(source)).column("clip_id")
    assert sorted(names["clip"][name] for name in shared.column("clip_id")) == sorted(old)
    assert {names["person"][name] for name in shared.column("subject_id")} == {"anna_karenina"}
    other = json.loads((as_crops[0] / "mapping.json").read_text())
    assert set(other["old_names"]["clip"]).isdisjoint(names["clip"])  # another key


def test_the_voice_is_another_one_and_in_time(
    source: Path, as_video: tuple[Path, AnonymousClips], as_crops: tuple[Path, AnonymousClips]
) -> None:
    before = all_frames(source.parent / "rec-0815.mkv").audio
    kept = all_frames(copy_of(as_crops, "anna_karenina-1")).audio
    shifted = all_frames(copy_of(as_video, "anna_karenina-1")).audio
    assert before is not None
    assert kept is not None
    assert shifted is not None
    assert pitch_hz(before, 16_000) == pytest.approx(VOICE_HZ, rel=0.01)
    assert pitch_hz(kept, 16_000) == pytest.approx(VOICE_HZ, rel=0.01)
    semitones = 12 * np.log2(pitch_hz(shifted, 16_000) / VOICE_HZ)
    assert 2.8 < abs(semitones) < 6.2
    assert len(before) == pytest.approx(16_000, abs=800)
    assert abs(len(shifted) - len(before)) < 320
    length = min(len(before), len(kept), len(shifted)) // 100 * 100
    for sound in (kept, shifted):
        loud = [np.abs(s[:length]).reshape(-1, length // 100).mean(axis=1) for s in (before, sound)]
        assert np.corrcoef(*loud)[0, 1] > 0.9


@pytest.mark.parametrize("semitones", [-6.0, -3.0, 3.0, 6.0])
def test_pitch_shift_by_a_known_ratio(semitones: float) -> None:
    sound = voice(1.0, 48_000)
    shifted = shift_pitch(sound, 48_000, semitones)
    assert shifted.shape == sound.shape
    assert pitch_hz(shifted, 48_000) == pytest.approx(VOICE_HZ * 2 ** (semitones / 12), rel=0.01)


def test_sound_can_be_dropped_and_a_box_can_name_the_person(
    source: Path, tmp_path: Path, detector: FaceDetector
) -> None:
    second = Manifest.read(str(source)).by_ids(["anna_karenina-2"])
    result = anonymise_clips(
        second,
        str(tmp_path / "shared"),
        mapping=str(tmp_path / "mapping.json"),
        options=CopyOptions(form="video", sound="drop", face_rule="given_box"),
    )
    assert result.manifest is not None
    clip = all_frames(result.manifest.ref(0).uri)
    assert clip.audio is None
    (found,) = detector.detect(clip.frames_THWC[0])
    assert found.box[0] > WIDTH / 2  # the one on the right, though the other is larger


def test_an_interrupted_run_goes_on(source: Path, tmp_path: Path) -> None:
    first = run(source, tmp_path, form="crops", sound="drop", size_px=64)
    assert first.manifest is not None
    films = sorted((tmp_path / "shared" / "clips").iterdir())
    kept = films[1].stat().st_mtime_ns
    films[0].unlink()
    (tmp_path / "shared" / "manifest.parquet").unlink()
    (tmp_path / "shared" / "clips" / "half.mp4.123.part").write_bytes(b"half a film")
    again = run(source, tmp_path, form="crops", sound="drop", size_px=64)
    assert (again.num_made, again.num_there_already) == (1, 2)
    assert again.manifest is not None
    assert again.manifest.content_hash() == first.manifest.content_hash()
    assert sorted((tmp_path / "shared" / "clips").iterdir()) == films
    assert films[1].stat().st_mtime_ns == kept
    with pytest.raises(AnonymiseError, match=r"with other options \(form crops, sound drop"):
        run(source, tmp_path, form="video", sound="drop", size_px=64)
    others = Manifest.read(str(source)).by_ids(["anna_karenina-1"])
    with pytest.raises(AnonymiseError, match="of other clips"):
        anonymise_clips(
            others,
            str(tmp_path / "shared"),
            mapping=str(tmp_path / "mapping.json"),
            options=CopyOptions(form="crops", sound="drop", size_px=64),
        )
    (tmp_path / "mapping.json").unlink()
    with pytest.raises(AnonymiseError, match="but there is no mapping"):
        run(source, tmp_path, form="crops", sound="drop", size_px=64)


def test_long_clips_are_read_in_pieces_with_the_same_result(
    source: Path, tmp_path: Path, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = Manifest.read(str(source)).by_ids(["anna_karenina-1"]).ref(0)
    decoded = []
    for name in ("whole", "pieces"):
        copy = anonymous_copy(ref, CopyOptions(form="video", sound="keep"), detector)
        assert copy.num_frames == copy.num_with_face == NUM_FRAMES
        (tmp_path / f"{name}.mp4").write_bytes(copy.mp4)
        decoded.append(all_frames(tmp_path / f"{name}.mp4"))
        monkeypatch.setattr(anonymise_clip, "_FIRST_PIECE_FRAMES", 5)
        monkeypatch.setattr(anonymise_clip, "_MEMORY_BYTES", 4 * 3 * HEIGHT * WIDTH * 3)
    whole, pieces = decoded
    # x264's choices are not the same in every run: the pictures are, to a grey level or so.
    difference = np.abs(whole.frames_THWC.astype(int) - pieces.frames_THWC)
    assert difference.mean() < 0.5
    np.testing.assert_array_equal(whole.frame_times_s, pieces.frame_times_s)
    assert whole.audio is not None
    assert pieces.audio is not None
    np.testing.assert_array_equal(whole.audio, pieces.audio)


def test_copies_on_object_storage(source: Path, tmp_path: Path) -> None:
    first = Manifest.read(str(source)).by_ids(["rec-0815-cut"])
    for made, there in ((1, 0), (0, 1)):
        result = anonymise_clips(
            first,
            "memory://bucket/shared",
            mapping=str(tmp_path / "mapping.json"),
            options=CopyOptions(size_px=64),
        )
        assert (result.num_made, result.num_there_already) == (made, there)
    shared = Manifest.read("memory://bucket/shared")
    assert len(all_frames(shared.ref(0).uri).frames_THWC) == 5


def test_clips_that_cannot_be_copied_are_named_and_left_out(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    whole = (source.parent / "rec-0815.mkv").read_bytes()
    (folder / "good.mkv").write_bytes(whole)
    (folder / "text.mp4").write_text("this is no film")
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    (folder / "empty-room.mp4").write_bytes(encode_mp4(noise, np.arange(6) / 25, None))
    rows = [{"clip_id": p.stem, "uri": p.name, "label": "anger"} for p in sorted(folder.iterdir())]
    rows.append({"clip_id": "gone", "uri": "gone.mp4"})
    Manifest.from_rows(rows).write(str(folder / "manifest.parquet"))
    result = run(folder / "manifest.parquet", tmp_path)
    assert result.manifest is not None
    assert result.manifest.labels == ("anger",)
    assert len(result.manifest) == 1
    reasons = {clip: why.partition(":")[0] for clip, why in result.left_out.items()}
    assert reasons == {"text": "not_a_video", "empty-room": "no_face", "gone": "missing_file"}
    assert json.loads((tmp_path / "mapping.json").read_text())["left_out"] == result.left_out
    assert len(list((tmp_path / "shared").rglob("*.mp4"))) == 1


def test_the_mapping_may_not_be_shared(source: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(str(source))
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    for mapping, message in (
        (str(tmp_path / "shared" / "m.json"), "lies in --out"),
        (str(tmp_path / "shared" / "deep" / "m.json"), "lies in --out"),
        (str(tmp_path / "link" / "m.json"), "lies in --out"),
        ("s3://bucket/m.json", "not a URI"),
        (str(tmp_path), "is a folder"),
    ):
        with pytest.raises(AnonymiseError, match=message):
            anonymise_clips(
                manifest, str(tmp_path / "shared"), mapping=mapping, options=CopyOptions()
            )
    notes = tmp_path / "notes.json"
    notes.write_text("[1, 2]")
    with pytest.raises(AnonymiseError, match="not a mapping"):
        anonymise_clips(manifest, str(tmp_path / "s2"), mapping=str(notes), options=CopyOptions())
    assert notes.read_text() == "[1, 2]"
    assert not (tmp_path / "s2").exists()


def test_columns_are_kept_only_if_they_name_nobody(source: Path, tmp_path: Path) -> None:
    first = Manifest.read(str(source)).by_ids(["rec-0815-cut"])

    def keep(*columns: str) -> AnonymousClips:
        return anonymise_clips(
            first,
            str(tmp_path / "shared"),
            mapping=str(tmp_path / "mapping.json"),
            options=CopyOptions(size_px=64),
            keep_columns=columns,
        )

    with pytest.raises(AnonymiseError, match="names its subject_id"):
        keep("note")
    with pytest.raises(AnonymiseError, match="can't be kept"):
        keep("uri")
    with pytest.raises(ManifestError, match="Did you mean 'room'"):
        keep("rooms")
    assert not (tmp_path / "mapping.json").exists()
    result = keep("age", "label")
    assert result.manifest is not None
    assert result.manifest.column("age") == [31]
    assert "room" not in result.manifest.table.column_names


def test_options_that_make_no_sense(source: Path, tmp_path: Path) -> None:
    with pytest.raises(AnonymiseError, match="even number"):
        run(source, tmp_path, size_px=95)
    with pytest.raises(AnonymiseError, match="empty for 2 clips: anna_karenina-1, rec-0815-cut"):
        run(source, tmp_path, face_rule="given_box")


def test_frames_in_which_the_person_is_not_found_are_hidden(
    synth_manifest: Path, tmp_path: Path
) -> None:
    film = sorted(synth_manifest.parent.rglob("*.mp4"))[0]
    frames = all_frames(film, with_audio=False).frames_THWC.repeat(2, axis=1).repeat(2, axis=2)
    frames[4] = np.random.default_rng(1).integers(0, 256, frames[4].shape, dtype=np.uint8)
    (tmp_path / "in.mp4").write_bytes(encode_mp4(frames, np.arange(len(frames)) / 25, None))
    Manifest.from_rows([{"clip_id": "a", "uri": "in.mp4"}]).write(str(tmp_path / "m.parquet"))
    for form in ("crops", "video"):
        result = run(tmp_path / "m.parquet", tmp_path / form, form=form, size_px=128)
        assert result.manifest is not None
        shown = all_frames(result.manifest.ref(0).uri).frames_THWC
        inner = shown[:, 36:44, 36:44].astype(float).std(axis=(1, 2)).max(axis=-1)
        assert inner[4] < 4  # inside of one cell
        cells = shown[4].astype(float).reshape(8, 16, 8, 16, 3)[:, 4:12, :, 4:12]
        assert cells.std(axis=(1, 3)).max() < 6
        assert shown[3].astype(float).reshape(8, 16, 8, 16, 3).std(axis=(1, 3)).max() > 15


def test_the_verb_prints_what_it_did(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    clips.add_arguments(parser)
    command = ["anonymise", str(source), "--out", str(tmp_path / "shared")]
    command += ["--mapping", str(tmp_path / "who.json"), "--size", "64", "--keep-columns", "age"]
    assert clips.run(parser.parse_args(command)) == 0
    printed = capsys.readouterr().out
    assert "shared: 3 clips, 0 left out" in printed
    assert "leads back to people, not to be shared" in printed
    assert "voices are as they were" in printed
    assert clips.run(parser.parse_args([*command, "--workers", "1"])) == 0
    assert "(3 of them by an earlier run)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--workers 0"):
        clips.run(parser.parse_args([*command, "--workers", "0"]))
