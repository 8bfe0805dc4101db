"""`mien.clips.inspect`: planted faults are found, and nothing else."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mien.clips.inspect.check import CheckReport, check_clips
from mien.clips.inspect.findings import KINDS, Finding, count_by_kind, write_findings
from mien.clips.inspect.fingerprint import (
    MOTION_SHAPE,
    NUM_FRAMES,
    PICTURE_SHAPE,
    fingerprint,
    mirror_signs,
)
from mien.clips.inspect.near_duplicates import BUCKET_LIMIT, Looks, find_same_looks
from mien.clips.manifest import Manifest

Frames = np.ndarray[Any, np.dtype[np.uint8]]
Change = Callable[[Frames], Frames]


def unchanged(frame: Frames) -> Frames:
    return frame


def copy_video(
    source: Path,
    target: Path,
    change: Change = unchanged,
    options: Mapping[str, str] | None = None,
    codec: str = "libx264",
) -> Path:
    """Decodes, changes every frame, encodes anew; without the sound."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        frames = [frame.to_ndarray(format="rgb24") for frame in old.decode(video=0)]
        stream = new.add_stream(codec, rate=Fraction(25), options=dict(options or {}))
        stream.height, stream.width = change(frames[0]).shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(change(frame))
            new.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        new.mux(stream.encode(None))
    return target


def brighter(frame: Frames) -> Frames:
    return np.clip(frame * 1.25 + 15.0, 0, 255).astype(np.uint8)


COPIES: dict[str, dict[str, Any]] = {
    "reencoded": {"options": {"crf": "30"}},
    "mpeg4": {"codec": "mpeg4", "options": {"b": "200000"}},
    "mirrored": {"change": lambda frame: frame[:, ::-1]},
    "brighter": {"change": brighter},
    "mirrored_brighter": {"change": lambda frame: brighter(frame[:, ::-1])},
    "grey": {"change": lambda frame: np.repeat(frame[..., 1:2], 3, axis=2)},
    "larger": {"change": lambda frame: frame.repeat(2, axis=0).repeat(2, axis=1)},
}


@pytest.fixture(scope="module")
def clean(synth_manifest: Path) -> Manifest:
    """36 clips of 12 people, the last three of whom are the test."""
    manifest = Manifest.read(str(synth_manifest))
    rows = manifest.table.to_pylist(maps_as_pydicts="lossy")
    tested = sorted(manifest.subjects)[-3:]
    for row in rows:
        row["split"] = "test" if row["subject_id"] in tested else "train"
    return Manifest.from_rows(rows, base=manifest.base)


def row_of(manifest: Manifest, number: int, **changes: Any) -> dict[str, Any]:
    table = manifest.table.slice(number, 1)
    (row,) = table.to_pylist(maps_as_pydicts="lossy")
    row["uri"] = manifest.ref(number).uri
    return {**row, **changes}


def check_with(clean: Manifest, *rows: dict[str, Any], **options: Any) -> CheckReport:
    kept = [row_of(clean, number) for number in range(len(clean))]
    return check_clips(Manifest.from_rows([*kept, *rows]), num_workers=0, **options)


def found(report: CheckReport) -> set[tuple[str, str]]:
    return {(finding.kind, finding.clip_id) for finding in report.findings}


def test_different_clips_of_the_same_people_are_no_duplicates(clean: Manifest) -> None:
    report = check_clips(clean, num_workers=0)
    assert report.findings == ()
    assert report.num_clips == 36


def test_copies_are_found_whatever_was_done_to_them(clean: Manifest, tmp_path: Path) -> None:
    rows, expected = [], set()
    for number, (name, how) in enumerate(COPIES.items()):
        source = clean.ref(number)
        path = copy_video(Path(source.uri), tmp_path / f"{name}.mp4", **how)
        rows.append(row_of(clean, number, clip_id=name, uri=str(path), has_audio=None))
        expected |= {("duplicate", name), ("duplicate", source.clip_id)}
    report = check_with(clean, *rows)
    assert found(report) == expected
    for name in COPIES:
        (finding,) = [f for f in report.findings if f.clip_id == name]
        (partner,) = [f for f in report.findings if f.group == finding.group and f != finding]
        assert finding.severity == "warning"
        assert f"as {partner.clip_id} (nearly the same video" in finding.detail


def test_a_copy_in_another_split_is_an_error_that_names_both_and_what_differs(
    clean: Manifest, tmp_path: Path
) -> None:
    same = tmp_path / "same.mp4"
    shutil.copy(clean.ref(0).uri, same)
    leak = row_of(clean, 0, clip_id="leak", uri=str(same), split="test", subject_id="x")
    report = check_with(clean, leak)
    first = clean.ref(0)
    assert found(report) == {
        ("duplicate_across_splits", "leak"),
        ("duplicate_across_splits", first.clip_id),
    }
    (finding,) = [f for f in report.findings if f.clip_id == "leak"]
    assert finding.severity == "error"
    assert f"as {first.clip_id} (the same bytes); in test and train" in finding.detail
    assert f"people differ: {first.subject_id}, x" in finding.detail


def test_folds_count_as_splits_where_there_are_none(clean: Manifest) -> None:
    rows = [row_of(clean, 0, split=None, fold=1), row_of(clean, 0, split=None, fold=2)]
    rows[1]["clip_id"] = "again"
    report = check_clips(Manifest.from_rows(rows), num_workers=0)
    assert {kind for kind, _ in found(report)} == {"duplicate_across_splits"}


def test_pieces_of_a_file_overlap_or_not(clean: Manifest) -> None:
    def piece(name: str, start_s: float, end_s: float, **changes: Any) -> dict[str, Any]:
        times = {"start_s": start_s, "end_s": end_s, "num_frames": None}
        return row_of(clean, 0, clip_id=name, **times, **changes)

    report = check_clips(
        Manifest.from_rows([piece("a", 0.0, 0.24), piece("b", 0.24, 0.44), piece("c", 0.4, 0.6)]),
        num_workers=0,
    )
    assert found(report) == {("overlap", "b"), ("overlap", "c")}
    report = check_clips(
        Manifest.from_rows([piece("a", 0.0, 0.4), piece("b", 0.2, 0.5, split="test")]),
        num_workers=0,
    )
    assert {kind for kind, _ in found(report)} == {"overlap_across_splits"}
    # Two people of one picture.
    boxes = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]
    faces = [piece(str(k), 0.0, 0.4, face_box=box) for k, box in enumerate(boxes)]
    assert check_clips(Manifest.from_rows(faces), num_workers=0).findings == ()


def test_broken_files_and_false_claims_are_found(clean: Manifest, tmp_path: Path) -> None:
    source = Path(clean.ref(0).uri)
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    black = copy_video(source, tmp_path / "black.mp4", lambda frame: frame * 0)
    wall = np.add.outer(np.arange(64), 3 * np.arange(64)).astype(np.uint8)
    walls = copy_video(source, tmp_path / "wall.mp4", lambda _: np.stack([wall] * 3, axis=2))
    rows = [
        row_of(clean, 0, clip_id="cut", uri=str(tmp_path / "cut.mp4")),
        row_of(clean, 0, clip_id="empty", uri=str(tmp_path / "empty.mp4")),
        row_of(clean, 0, clip_id="gone", uri=str(tmp_path / "gone.mp4")),
        row_of(clean, 0, clip_id="black", uri=str(black), has_audio=False),
        row_of(clean, 0, clip_id="wall", uri=str(walls), has_audio=True, num_frames=14),
    ]
    report = check_clips(Manifest.from_rows(rows), num_workers=0)
    assert found(report) == {
        ("not_a_video", "cut"),
        ("empty_file", "empty"),
        ("missing_file", "gone"),
        ("blank_picture", "black"),
        ("no_face", "wall"),
        ("missing_audio", "wall"),
        ("frame_count", "wall"),
    }
    details = {finding.kind: finding.detail for finding in report.findings}
    assert details["frame_count"] == "num_frames is 14, the clip has 15"
    assert report.num_faulty == 5


def test_silent_and_unexpected_sound(clean: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(clean.ref(0).uri) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        sound = new.add_stream("aac", rate=16000, layout="mono")
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                new.mux(packet)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts = 16000, 0
        new.mux(sound.encode(silence))
        new.mux(sound.encode(None))
    rows = [
        row_of(clean, 0, clip_id="silent", uri=str(path)),
        row_of(clean, 1, clip_id="speaks", has_audio=False),
    ]
    report = check_clips(Manifest.from_rows(rows), num_workers=0)
    assert found(report) == {("silent_audio", "silent"), ("unexpected_audio", "speaks")}


def test_a_full_decode_finds_damage_between_the_frames_that_are_sampled(
    clean: Manifest, tmp_path: Path
) -> None:
    source = clean.ref(0)
    packets = []
    with av.open(source.uri) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    # The last frame: nothing that is sampled depends on it.
    position, size = packets[-1]
    data = bytearray(Path(source.uri).read_bytes())
    data[position + 4 : position + size] = bytes(size - 4)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    manifest = Manifest.from_rows([row_of(clean, 0, clip_id="damaged", uri=str(path))])
    assert check_clips(manifest, num_workers=0).findings == ()
    thorough = check_clips(manifest, num_workers=0, decode_all=True)
    assert found(thorough) == {("damaged", "damaged")}


def test_processes_find_the_same_and_progress_is_told(clean: Manifest, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    rows = [row_of(clean, 0), row_of(clean, 0, clip_id="twin"), row_of(clean, 1, uri="/nowhere")]
    manifest = Manifest.from_rows(rows)
    parallel = check_clips(
        manifest, num_workers=1, progress=lambda done, total: told.append((done, total))
    )
    assert parallel == check_clips(manifest, num_workers=0)
    assert told == [(3, 3)]


def test_report_counts_errors_first_and_writes_csv(tmp_path: Path, clean: Manifest) -> None:
    ref = clean.ref(0)
    findings = [
        Finding.of(ref, "no_face", "none"),
        Finding.of(clean.ref(1), "no_face", "none"),
        Finding.of(ref, "empty_file", 'it has "0" bytes'),
    ]
    assert [row[:3] for row in count_by_kind(findings)] == [
        ("error", "empty_file", 1),
        ("warning", "no_face", 2),
    ]
    write_findings(str(tmp_path / "report.csv"), findings)
    with open(tmp_path / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["no_face", "no_face", "empty_file"]
    assert rows[2]["detail"] == 'it has "0" bytes'
    assert rows[2]["uri"] == ref.uri


def test_every_reason_of_the_decoder_is_an_error() -> None:
    from mien.media.errors import REASONS

    assert all(KINDS[reason][0] for reason in REASONS)


def moving_frames(seed: int) -> Frames:
    """A smooth random film."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (NUM_FRAMES, 6, 6, 1)).astype(np.uint8)
    return np.repeat(coarse.repeat(12, axis=1).repeat(12, axis=2), 3, axis=3)


def test_a_mirrored_film_has_the_fingerprint_with_odd_columns_negated() -> None:
    frames = moving_frames(0)
    straight, mirrored = fingerprint(frames), fingerprint(frames[:, :, ::-1])
    for one, other, shape in (
        (straight.motion, mirrored.motion, MOTION_SHAPE),
        (straight.picture, mirrored.picture, PICTURE_SHAPE),
    ):
        difference = one.astype(int) * mirror_signs(shape) - other
        assert np.abs(difference).max() <= 1


def test_a_still_has_no_movement_and_a_black_film_is_blank() -> None:
    frames = moving_frames(1)
    still = np.repeat(frames[:1], NUM_FRAMES, axis=0)
    assert fingerprint(still).movement == pytest.approx(0, abs=1e-6)
    assert fingerprint(frames).movement > 0.5
    assert fingerprint(frames * 0).is_blank


def looks_of(motion: Any, picture: Any, movement: float) -> Looks:
    return Looks(
        picture=np.asarray(picture, dtype=np.int8),
        motion=np.asarray(motion, dtype=np.int8),
        movement=np.full(len(motion), movement, dtype=np.float32),
    )


def test_planted_pairs_among_many_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    number = 5000
    motion = rng.integers(-60, 61, (number, 448))
    picture = rng.integers(-60, 61, (number, 256))
    for copy, original in ((7, 4000), (8, 123)):
        picture[copy] = picture[original]
        motion[copy] = motion[original] + rng.normal(0, 20, 448)
    motion[8] *= mirror_signs(MOTION_SHAPE)
    picture[8] *= mirror_signs(PICTURE_SHAPE)
    # Moves as another one does, but looks different: two faces on one driver.
    motion[9] = motion[321]
    pairs = find_same_looks(looks_of(motion, picture, 0.1))
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {
        (7, 4000),
        (8, 123),
    }
    assert pairs.cosine.min() > 0.8


def test_many_alike_are_linked_without_comparing_all_with_all() -> None:
    rng = np.random.default_rng(1)
    alike = 3 * BUCKET_LIMIT
    motion = np.tile(rng.integers(-60, 61, (1, 448)), (alike, 1))
    picture = np.tile(rng.integers(-60, 61, (1, 256)), (alike, 1))
    pairs = find_same_looks(looks_of(motion, picture, 0.1))
    assert len(pairs.first) < alike * BUCKET_LIMIT
    assert set(pairs.first.tolist()) | set(pairs.second.tolist()) == set(range(alike))


def test_stills_are_compared_by_their_picture_only() -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(-60, 61, (50, 256))
    picture[3] = picture[40] + rng.integers(-2, 3, 256)
    motion = rng.integers(-1, 2, (50, 448))
    pairs = find_same_looks(looks_of(motion, picture, 0.0))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([3], [40])
