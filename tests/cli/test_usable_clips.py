"""Consent and licences as a run sees them: left out before anything is read, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.clips.manifest import Manifest
from mien_jobs.data import open_data
from mien_jobs.recipe import DataPlan


def write_manifest(folder: Path) -> str:
    rows = [
        {
            "clip_id": f"c{number}",
            "uri": f"c{number}.mp4",
            "subject_id": f"s{number}",
            "label": ("joy", "fear")[number % 2],
            "licence": ("CC-BY-4.0", "research only", None)[number % 3],
            "consent": number != 0,
        }
        for number in range(30)
    ]
    place = str(folder / "manifest.parquet")
    Manifest.from_rows(rows).write(place)
    return place


def test_without_a_wish_only_consent_counts(tmp_path: Path) -> None:
    data = open_data(DataPlan(manifest=write_manifest(tmp_path)))

    assert len(data.manifest) == 29
    assert data.left_out == "left out unread, of 30 clips: 1 without consent"


def test_only_allowed_licences_are_used_and_the_rest_is_said(tmp_path: Path) -> None:
    place = write_manifest(tmp_path)
    everything = open_data(DataPlan(manifest=place))

    data = open_data(DataPlan(manifest=place, licences=("CC-BY-4.0",)))

    assert set(data.manifest.column("licence")) == {"CC-BY-4.0"}
    assert len(data.manifest) == 9
    assert "1 without consent, 20 under no licence that is allowed" in data.left_out
    used = {*data.split.train, *data.split.val, *data.split.test}
    assert used == set(data.manifest.column("clip_id"))
    # Who looks for the runs that used a manifest need not know which licences they allowed.
    assert data.manifest_hash == everything.manifest_hash


def test_a_licence_that_no_clip_has_is_refused(tmp_path: Path) -> None:
    plan = DataPlan(manifest=write_manifest(tmp_path), licences=("cc-by",))

    with pytest.raises(ValueError, match=r"Did you mean 'CC-BY-4\.0'"):
        open_data(plan)


def test_a_face_rule_that_reads_boxes_needs_them_all(tmp_path: Path) -> None:
    plan = DataPlan(manifest=write_manifest(tmp_path), face_rule="given_box")

    with pytest.raises(ValueError, match="29 of 29 clips have no face_box"):
        open_data(plan)
