"""Consent and licences: clips that may not be used are not even opened."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from mien.clips.manifest import Manifest
from mien.clips.person_data import usable_clips
from mien.clips.schema import ManifestError

ROWS: list[dict[str, Any]] = [
    {"clip_id": "a", "uri": "a.mp4", "consent": True, "licence": "CC-BY-4.0"},
    {"clip_id": "b", "uri": "b.mp4", "consent": False, "licence": "CC-BY-4.0"},
    {"clip_id": "c", "uri": "c.mp4", "consent": True, "licence": "research-only"},
    {"clip_id": "d", "uri": "d.mp4", "consent": True, "licence": None},
    {"clip_id": "e", "uri": "e.mp4", "consent": None, "licence": None},
]


class CountingFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Local files as counted://...; remembers every path that anybody asks about."""

    protocol = "counted"
    asked: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, str):
            path = path.removeprefix("counted://")
        return LocalFileSystem._strip_protocol(path)

    def info(self, path: str, **options: Any) -> Any:
        self.asked.append(str(path))
        return super().info(self._strip_protocol(path), **options)

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.asked.append(str(path))
        return super()._open(path, *arguments, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.asked.append(str(path))
        return super().cat_file(self._strip_protocol(path), *arguments, **options)

    def isdir(self, path: str) -> bool:
        self.asked.append(str(path))
        return bool(super().isdir(self._strip_protocol(path)))


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """What was asked of counted:// in this test."""
    fsspec.register_implementation("counted", CountingFileSystem, clobber=True)
    CountingFileSystem.asked.clear()
    yield CountingFileSystem.asked
    CountingFileSystem.asked.clear()


@pytest.fixture
def half(synth_manifest: Path, tmp_path: Path) -> Manifest:
    """Clips on counted://, every second of which must not be used."""
    manifest = Manifest.read(str(synth_manifest))
    rows = manifest.table.to_pylist(maps_as_pydicts="lossy")
    for number, row in enumerate(rows):
        place = tmp_path / f"{'good' if number % 2 == 0 else 'secret'}-{row['clip_id']}.mp4"
        shutil.copy(manifest.ref(number).uri, place)
        row |= {"uri": f"counted://{place}", "consent": number % 2 == 0}
    return Manifest.from_rows(rows)


def test_consent_and_licences_filter_and_are_counted() -> None:
    manifest = Manifest.from_rows(ROWS, base="/data")
    every = usable_clips(manifest)
    assert every.manifest.column("clip_id") == ["a", "c", "d"]
    assert (every.without_consent, every.other_licence) == (2, 0)
    assert every.summary() == "left out unread, of 5 clips: 2 without consent"
    free = usable_clips(manifest, ["CC-BY-4.0"])
    assert free.manifest.column("clip_id") == ["a"]
    assert (free.without_consent, free.other_licence) == (2, 2)
    assert free.summary() == (
        "left out unread, of 5 clips: 2 without consent, 2 under no licence that is allowed"
    )
    both = usable_clips(manifest, ["research-only", "CC-BY-4.0"])
    assert both.manifest.column("clip_id") == ["a", "c"]
    assert both.manifest.ref(1).licence == "research-only"


def test_nothing_is_said_where_nothing_is_left_out() -> None:
    manifest = Manifest.from_rows([{"clip_id": "a", "uri": "a.mp4"}], base="/data")
    assert usable_clips(manifest).summary() == ""
    assert len(usable_clips(manifest).manifest) == 1


def test_an_unknown_licence_names_the_nearest() -> None:
    manifest = Manifest.from_rows(ROWS, base="/data")
    with pytest.raises(ManifestError, match=r"'cc-by-4'. Did you mean 'CC-BY-4.0'\?"):
        usable_clips(manifest, ["cc-by-4"])
    plain = Manifest.from_rows([{"clip_id": "a", "uri": "a.mp4"}], base="/data")
    with pytest.raises(ManifestError, match="the column `licence` is empty"):
        usable_clips(plain, ["CC0-1.0"])


def test_nobody_left_is_an_error_that_says_why() -> None:
    manifest = Manifest.from_rows([ROWS[1], ROWS[4]], base="/data")
    with pytest.raises(ManifestError, match=r"no clip may be used: .* 2 without consent"):
        usable_clips(manifest)


def test_licence_is_a_column_of_text_and_null_columns_change_no_hash() -> None:
    bare = [{"clip_id": "a", "uri": "a.mp4"}]
    plain = Manifest.from_rows(bare, base="/data")
    assert plain.table["licence"].null_count == 1
    empty = Manifest.from_rows([{**bare[0], "licence": None}], base="/data")
    assert plain.content_hash() == empty.content_hash()
    with pytest.raises(ManifestError, match="empty licence"):
        Manifest.from_rows([{**bare[0], "licence": " "}], base="/data")


def test_a_table_may_spell_it_license(tmp_path: Path, synth_manifest: Path) -> None:
    from mien.clips.ingest import ingest_csv

    video = Manifest.read(str(synth_manifest)).ref(0).uri
    (tmp_path / "table.csv").write_text(f"path,license\n{video},CC0-1.0\n")
    assert ingest_csv(tmp_path / "table.csv").manifest.column("licence") == ["CC0-1.0"]


def secret(asked: list[str]) -> list[str]:
    return [path for path in asked if "secret" in path]


def test_a_check_never_asks_about_a_clip_without_consent(half: Manifest, asked: list[str]) -> None:
    from mien.clips.inspect.check import check_clips

    usable = usable_clips(half)
    report = check_clips(usable.manifest, num_workers=0)
    assert report.num_clips == usable.without_consent == 18
    assert report.findings == ()
    assert len(asked) >= 18
    assert secret(asked) == []


def test_a_contact_sheet_never_asks_about_a_clip_without_consent(
    half: Manifest, asked: list[str]
) -> None:
    from mien.clips.inspect.contact_sheet import make_contact_sheet

    sheet = make_contact_sheet(usable_clips(half).manifest, num_threads=1)
    assert sum(len(cells) for cells in sheet.rows.values()) == 18
    assert asked
    assert secret(asked) == []


def test_a_stream_never_asks_about_a_clip_without_consent(
    half: Manifest, asked: list[str], tmp_path: Path
) -> None:
    """From a recipe's data to decoded batches, as training and evaluation do."""
    from mien.stream.source import ClipSource
    from mien_jobs.data import open_data
    from mien_jobs.recipe import DataPlan
    from mien_models.contract import StreamSpec, ViewSpec

    half.write(str(tmp_path / "manifest.parquet"))
    data = open_data(DataPlan(manifest=str(tmp_path / "manifest.parquet")))
    source = ClipSource(data.manifest, data.split, data.label_set, seed=0)
    view = ViewSpec(num_frames=2)
    spec = StreamSpec(split="all", views=(view,), image_size_px=32, batch_size=4, audio=None)
    seen = [clip for batch in source.scan(spec) for clip in batch.clip_ids]
    assert len(seen) == 18
    assert len(source.quarantine) == 0
    assert asked
    assert secret(asked) == []
