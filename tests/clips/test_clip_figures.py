"""Statistics and contact sheets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.clips.inspect.contact_sheet import make_contact_sheet
from mien.clips.inspect.statistics import NO_LABEL, NOWHERE, Spread, describe_clips
from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError


def rows_of(*specs: tuple[str | None, str | None, str | None]) -> list[dict[str, Any]]:
    """Rows of (label, person, split)."""
    return [
        {"clip_id": str(n), "uri": f"{n}.mp4", "label": label, "subject_id": who, "split": split}
        for n, (label, who, split) in enumerate(specs)
    ]


def test_balance_by_class_person_and_split() -> None:
    rows = rows_of(
        ("anger", "ann", "train"),
        ("anger", "ann", "train"),
        ("anger", "bob", "test"),
        ("fear", "bob", "test"),
        (None, None, None),
    )
    found = describe_clips(Manifest.from_rows(rows, base="/data"))
    assert dict(found.whole.clips_of_class) == {"anger": 3, "fear": 1, NO_LABEL: 1}
    assert dict(found.whole.people_of_class) == {"anger": 2, "fear": 1}
    assert [(p.name, p.num_clips, p.num_people) for p in found.parts] == [
        ("train", 2, 1),
        ("test", 2, 1),
        (NOWHERE, 1, 0),
    ]
    assert found.clips_per_person == Spread(known=2, minimum=2, median=2, maximum=2)
    # ann: anger, bob: anger and fear, of 2 x 2.
    assert found.coverage == 0.75


def test_folds_are_parts_where_there_are_no_splits_in_numeric_order() -> None:
    rows = rows_of(*[("anger", f"p{n}", None) for n in range(3)])
    for row, fold in zip(rows, (10, 9, 9), strict=True):
        row["fold"] = fold
    found = describe_clips(Manifest.from_rows(rows, base="/data"))
    assert found.part_kind == "fold"
    assert [(p.name, p.num_clips) for p in found.parts] == [("9", 2), ("10", 1)]


def test_durations_come_from_times_else_the_file_else_the_frames() -> None:
    rows = rows_of(*[("anger", "ann", None)] * 5)
    rows[0] |= {"start_s": 1.0, "end_s": 3.5, "duration_s": 60.0}
    rows[1] |= {"duration_s": 4.0}
    rows[2] |= {"start_s": 1.5, "duration_s": 4.0}
    rows[3] |= {"num_frames": 50, "fps": 25.0}
    found = describe_clips(Manifest.from_rows(rows, base="/data"))
    # 2.5, 4.0, 2.5, 2.0 and one that nobody knows.
    assert found.duration_s == Spread(known=4, minimum=2.0, median=2.5, maximum=4.0)
    assert found.fps == Spread(known=1, minimum=25, median=25, maximum=25)


def test_sound_consent_licences_and_sizes_are_counted() -> None:
    rows = rows_of(*[("anger", "ann", None)] * 4)
    rows[0] |= {"has_audio": True, "licence": "CC0-1.0", "width": 320, "height": 240}
    rows[1] |= {"has_audio": False, "consent": False}
    rows[2] |= {"has_audio": False, "audio_uri": "sound.wav", "consent": True}
    rows[3] |= {"consent": True}
    rows[0] |= {"consent": True}
    found = describe_clips(Manifest.from_rows(rows, base="/data"))
    assert (found.with_sound, found.without_sound) == (2, 1)
    assert found.without_consent == 1
    assert dict(found.licences) == {"CC0-1.0": 1}
    assert dict(found.sizes) == {"320 x 240": 1}


def test_every_warning() -> None:
    specs = [("anger", f"p{n}", "train") for n in range(20)]
    specs += [("anger", "star", "train")] * 10
    specs += [("fear", "p0", "test"), (None, "p1", "train"), ("anger", None, "train")]
    found = describe_clips(Manifest.from_rows(rows_of(*specs), base="/data"))
    assert list(found.warnings) == [
        "classes with fewer than 10 clips: fear (1)",
        "the largest class has 31 times the clips of the smallest",
        "split train has no clip of: fear",
        "split test has no clip of: anger",
        "1 of 33 clips have no label",
        "1 clips have no subject_id: nobody can promise that a person is in one split only",
        "star has 10 clips, 30% of all",
        "1 people are in two splits: p0; scores would be of people that the model has seen",
    ]


def test_an_even_manifest_warns_of_nothing() -> None:
    specs = [(c, f"p{n}", "train") for c in ("anger", "fear") for n in range(12)]
    assert describe_clips(Manifest.from_rows(rows_of(*specs), base="/data")).warnings == ()


def test_a_sheet_has_a_row_a_class_and_is_the_same_every_time(synth_manifest: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    sheet = make_contact_sheet(manifest, per_group=3, face_px=64)
    assert list(sheet.rows) == ["anger", "happiness", "sadness"]
    label_of = dict(zip(manifest.column("clip_id"), manifest.column("label"), strict=True))
    for label, cells in sheet.rows.items():
        assert [label_of[cell.clip_id] for cell in cells] == [label] * 3
        assert len({cell.caption for cell in cells}) == 3  # three people
    assert sheet.problems == []
    backwards = manifest.by_ids(manifest.column("clip_id")[::-1])
    again = make_contact_sheet(backwards, per_group=3, face_px=64, num_threads=1)
    assert again.png == sheet.png
    other = make_contact_sheet(manifest, per_group=3, face_px=64, seed=1)
    assert other.png != sheet.png


def test_the_picture_shows_the_faces_in_their_places(synth_manifest: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    sheet = make_contact_sheet(manifest, per_group=2, face_px=64)
    picture = np.asarray(Image.open(io.BytesIO(sheet.png)).convert("RGB"))
    for cells in sheet.rows.values():
        for cell in cells:
            assert cell.face_SSC is not None
            lines = [line.tobytes() for line in picture]
            tops = [y for y, line in enumerate(lines) if cell.face_SSC[0].tobytes() in line]
            assert any(
                all(cell.face_SSC[dy].tobytes() in lines[y + dy] for dy in range(64)) for y in tops
            )


def test_nobody_is_shown_twice_before_everybody_was_shown_once(synth_manifest: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    rows = manifest.table.to_pylist(maps_as_pydicts="lossy")
    first = rows[0]["subject_id"]
    crowd = [dict(rows[0], clip_id=f"again{n}") for n in range(30)]
    for row in rows:
        row["label"] = "all"
    many = Manifest.from_rows([*rows, *(dict(r, label="all") for r in crowd)], base=manifest.base)
    sheet = make_contact_sheet(many, per_group=12, face_px=48)
    captions = [cell.caption for cell in sheet.rows["all"]]
    assert sorted(captions) == sorted(manifest.subjects)
    assert captions.count(first) == 1


def test_clips_without_a_face_are_marked_not_left_out(synth_manifest: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    row = manifest.table.slice(0, 1).to_pylist(maps_as_pydicts="lossy")[0]
    (tmp_path / "text.mp4").write_text("no video")
    broken = dict(row, clip_id="broken", uri=str(tmp_path / "text.mp4"), label="fear")
    good = dict(row, uri=manifest.ref(0).uri)
    sheet = make_contact_sheet(Manifest.from_rows([good, broken]), face_px=64)
    assert sheet.problems == ["broken: not a video"]
    assert sheet.rows["fear"][0].face_SSC is None


def test_a_column_without_values_names_one_that_has_some() -> None:
    rows = [{"clip_id": "a", "uri": "a.mp4", "subject_id": "ann"}]
    with pytest.raises(ManifestError, match=r"no clip has a label.*try --by subject"):
        make_contact_sheet(Manifest.from_rows(rows, base="/data"))
