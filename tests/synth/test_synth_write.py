"""Data sets on disk: real mp4 files, a manifest that reads back, the same bytes every time."""

import hashlib
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mien.clips.manifest import Manifest
from mien.synth import ACTION_UNITS, SynthSpec, plan_clips, render_clip, write_dataset
from mien.synth.voice import SAMPLE_RATE_HZ

SPEC = SynthSpec(
    num_subjects=3,
    unlabelled_subjects=1,
    classes=("happiness", "anger"),
    compounds=("happily_surprised",),
    size_px=64,
    duration_s=1.0,
    missing_audio=0.25,
    silent_audio=0.25,
    label_noise=2 / 9,
    ambiguous=0.25,
    seed=11,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    calls: list[tuple[int, int]] = []
    manifest = write_dataset(
        SPEC, root, num_workers=1, progress=lambda done, of: calls.append((done, of))
    )
    return manifest, calls


def rows_of(manifest: Path) -> list[dict]:
    return Manifest.read(str(manifest)).table.to_pylist()


def test_progress_counts_clips_to_the_end(written):
    _, calls = written
    assert calls[-1] == (12, 12)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_the_manifest_reads_back_with_all_that_was_planted(written):
    rows = rows_of(written[0])
    plans = plan_clips(SPEC)
    assert [row["clip_id"] for row in rows] == [plan.clip_id for plan in plans]
    assert [row["label"] for row in rows] == [plan.label for plan in plans]
    assert [row["true_label"] for row in rows] == [plan.true_label for plan in plans]
    assert sum(row["is_label_noise"] for row in rows) == 2
    assert sum(row["is_ambiguous"] for row in rows) == 3
    assert sum(row["label"] is None for row in rows) == 3
    assert Counter(row["audio_kind"] for row in rows) == {"speech": 6, "missing": 3, "silent": 3}
    assert all(row["consent"] and row["source"] == "mien-synth" for row in rows)
    assert all(row["fold"] is None and row["split"] is None for row in rows)


def test_uris_are_relative_to_the_manifest_and_nothing_else_lies_there(written):
    folder = written[0].parent
    table = Manifest.read(str(written[0])).table
    uris = table["uri"].to_pylist()
    assert all(uri == f"clips/{uri.split('/')[1]}/{Path(uri).name}" for uri in uris)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {*uris, "manifest.parquet"}


def test_clips_have_the_frames_the_rate_and_the_codecs(written):
    for row in rows_of(written[0]):
        with av.open(str(written[0].parent / row["uri"])) as container:
            video = container.streams.video[0]
            assert video.codec_context.name == "h264"
            assert video.average_rate == 25
            assert (video.width, video.height) == (64, 64)
            times = [float(frame.time) for frame in container.decode(video)]
        assert len(times) == row["num_frames"] == 25
        np.testing.assert_allclose(times, np.arange(25) / 25, atol=1e-6)


def test_audio_is_there_silent_or_missing_as_the_manifest_says(written):
    for row in rows_of(written[0]):
        with av.open(str(written[0].parent / row["uri"])) as container:
            streams = container.streams.audio
            assert bool(streams) == row["has_audio"] == (row["audio_kind"] != "missing")
            if not streams:
                continue
            assert streams[0].codec_context.name == "aac"
            frames = list(container.decode(streams[0]))
            sound = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        assert sound.size / SAMPLE_RATE_HZ == pytest.approx(1.0, abs=0.1)
        assert (np.abs(sound).max() > 0.02) == (row["audio_kind"] == "speech")


def test_the_decoded_picture_is_the_rendered_one(written):
    plan = plan_clips(SPEC)[0]
    with av.open(str(written[0].parent / rows_of(written[0])[0]["uri"])) as container:
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    error = decoded.astype(np.float32) - render_clip(plan).frames.astype(np.float32)
    assert np.sqrt((error**2).mean()) < 12.0  # H.264 at this rate, chroma at half size


def test_every_frame_has_every_action_unit(written):
    for row in rows_of(written[0]):
        curves = dict(row["action_units"])
        assert set(curves) == set(ACTION_UNITS)
        assert all(len(curve) == row["num_frames"] for curve in curves.values())
        assert all(min(curve) >= 0.0 and max(curve) <= 5.0 for curve in curves.values())


def test_two_processes_write_the_same_bytes_as_one(written, tmp_path):
    again = write_dataset(SPEC, tmp_path, num_workers=2)
    for path in sorted(written[0].parent.rglob("*.*")):
        twin = tmp_path / path.relative_to(written[0].parent)
        assert digest(path) == digest(twin), path.name
    assert Manifest.read(str(again)).content_hash() == Manifest.read(str(written[0])).content_hash()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_failed_run_leaves_no_manifest_and_no_partial_clip(tmp_path):
    spec = SynthSpec(num_subjects=2, classes=("anger",), size_px=32, duration_s=0.2)
    write_dataset(spec, tmp_path, num_workers=0)

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(spec, tmp_path, num_workers=0, progress=stop)
    assert not (tmp_path / "manifest.parquet").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_negative_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_workers must be 0 or more"):
        write_dataset(SynthSpec(num_subjects=1), tmp_path, num_workers=-1)
