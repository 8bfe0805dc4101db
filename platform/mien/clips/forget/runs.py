"""Which files of runs name a person's clips, and in what role.

Below a folder of runs, every JSON, Parquet and CSV file is read. A run is a folder with a
``recipe.json``; files elsewhere (copies among MLflow's artifacts) are told of as they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mien.clips.forget.memories import mentions_of
from mien.clips.forget.memory_files import MEMORY_KEYS, name_of
from mien.clips.forget.person import Person
from mien.clips.splits import PARTS
from mien.media import storage
from mien.monitor.clip_keys import rows_of_clips
from mien.monitor.sample import REFERENCE_FILE

SUFFIXES = (".json", ".parquet", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A file that names clips of the person."""

    location: str
    count: int
    """Places or rows in it that do."""
    parts: Mapping[str, int]
    """Clips in each part, where the file is a split."""
    in_memory: int = 0
    """Mentions in a method's own state, or rows of a reference of `mien monitor`."""
    is_ours: bool = True
    """False: a run on another manifest, whose clips only happen to have the same ids."""

    @property
    def name(self) -> str:
        """The file's name."""
        return name_of(self.location)

    def read(self) -> bytes:
        """The file's content now."""
        return storage.read_bytes(self.location)

    def write(self, data: bytes) -> None:
        """Replaces the file.

        Raises:
            StorageError: it can't be written; it is as it was then.
        """
        storage.write_bytes_atomically(self.location, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOfPerson:
    """A run folder with all of its files that name the person's clips."""

    folder: str
    """Empty: files that are in no run's folder."""
    manifest: str
    """That the run was started with; empty where that is not known."""
    mentions: tuple[Mention, ...]

    @property
    def is_ours(self) -> bool:
        """Whether the run was on one of the manifests."""
        return all(mention.is_ours for mention in self.mentions)

    @property
    def parts(self) -> dict[str, int]:
        """Clips of the person in each part of the run's split."""
        return {p: n for m in self.mentions for p, n in m.parts.items() if n}


def search_runs(folder: str, person: Person) -> list[RunOfPerson]:
    """Reads what is below a folder or prefix and finds the person's clips in it.

    Raises:
        StorageError: there is no such folder, or a file can't be read.
    """
    folder = storage.absolute(folder)
    files = sorted(_files(folder))
    recipes = {storage.parent(file): _json(file) for file in files if file.endswith("/recipe.json")}
    by_run: dict[str, list[Mention]] = {}
    for file in files:
        run = _run_of(file, recipes)
        is_ours = _is_ours(recipes[run], person) if run else True
        look = _reference_mention if name_of(file) == REFERENCE_FILE else _mention
        found = look(file, person, is_ours=is_ours)
        if found is not None:
            by_run.setdefault(run, []).append(found)
    return [
        RunOfPerson(folder=run, manifest=_manifest_of(recipes.get(run)), mentions=tuple(mentions))
        for run, mentions in sorted(by_run.items())
    ]


def _files(folder: str) -> Iterator[str]:
    fs, path = storage.file_system(folder)
    if not storage.is_folder(folder):
        raise storage.StorageError(
            "missing_file", f"there is no folder {folder}; name the folder of the runs"
        )
    with storage.explained(folder):
        found = fs.find(path)
    prefix = folder.split("://", 1)[0] + "://" if storage.is_remote(folder) else ""
    for entry in found:
        if entry.endswith(SUFFIXES):
            yield prefix + entry.removeprefix(prefix)


def _run_of(file: str, recipes: Mapping[str, Any]) -> str:
    """The innermost run that a file lies in; empty: none."""
    inside = [run for run in recipes if file.startswith(run + "/")]
    return max(inside, key=len, default="")


def _manifest_of(recipe: Any) -> str:
    data = recipe.get("data") if isinstance(recipe, Mapping) else None
    return str(data.get("manifest", "")) if isinstance(data, Mapping) else ""


def _is_ours(recipe: Any, person: Person) -> bool:
    """Whether a recipe names one of the manifests by place or by content; True if it names none."""
    uri = _manifest_of(recipe)
    if not uri:
        return True
    content = recipe.get("manifest_hash")
    uri = storage.absolute(uri)
    return any(
        uri in (manifest.uri, storage.parent(manifest.uri)) or content in manifest.content_hashes
        for manifest in person.manifests
    )


def _reference_mention(file: str, person: Person, *, is_ours: bool) -> Mention | None:
    """Rows of the person; one without keys that may hold some counts as one."""
    package = storage.join(storage.parent(file), "model.json")
    if storage.exists(package):
        is_ours = is_ours and is_package_ours(_json(package), person)
    try:
        rows = rows_of_clips(storage.read_bytes(file), person.clip_ids)
    except pa.ArrowException as error:
        raise _unsearchable(file, error) from error
    if rows is None:
        rows = int(is_ours)
    if not rows:
        return None
    return Mention(location=file, count=rows, parts={}, in_memory=rows, is_ours=is_ours)


def is_package_ours(info: Mapping[str, Any], person: Person) -> bool:
    """Whether a package's model was trained on one of the person's manifests."""
    recipe = {**info.get("recipe", {}), "manifest_hash": info.get("manifest_hash")}
    return _is_ours(recipe, person)


def _mention(file: str, person: Person, *, is_ours: bool) -> Mention | None:
    ids = person.clip_ids
    parts: dict[str, int] = {}
    in_memory = 0
    if file.endswith(".json"):
        content = _json(file)
        count = sum(1 for _ in mentions_of(content, ids))
        if isinstance(content, dict):
            if name_of(file) == "split.json":
                parts = {part: _num_named(content.get(part), ids) for part in PARTS}
            if name_of(file) == "model.json" and is_ours:
                is_ours = is_package_ours(content, person)
            memory = content.get(MEMORY_KEYS.get(name_of(file), ""))
            in_memory = sum(1 for _ in mentions_of(memory, ids))
    elif file.endswith(".parquet"):
        count = _rows_of_parquet(file, ids)
    else:
        rows = csv.reader(io.StringIO(storage.read_bytes(file).decode("utf-8", "replace")))
        count = sum(any(cell in ids for cell in row) for row in rows)
    if not count:
        return None
    return Mention(location=file, count=count, parts=parts, in_memory=in_memory, is_ours=is_ours)


def _num_named(clips: Any, ids: frozenset[str]) -> int:
    return len(ids.intersection(clips)) if isinstance(clips, list) else 0


def _rows_of_parquet(file: str, ids: frozenset[str]) -> int:
    source = pa.BufferReader(storage.read_bytes(file))
    try:
        if "clip_id" not in pq.read_schema(source).names:
            return 0
        column = pq.read_table(source, columns=["clip_id"])["clip_id"].cast(pa.string())
    except pa.ArrowException as error:
        raise _unsearchable(file, error) from error
    return pc.sum(pc.is_in(column, value_set=pa.array(sorted(ids)))).as_py() or 0


def _unsearchable(file: str, error: pa.ArrowException) -> storage.StorageError:
    return storage.StorageError(
        "storage_unreadable", f"{file} can't be searched for the person's clips: {error}"
    )


def _json(file: str) -> Any:
    """The content; of files that are no single JSON value, the values of their lines.

    Ray writes ``result.json`` a line a step, and a log may be cut: a line that is no JSON either is
    searched for words in quotes.
    """
    text = storage.read_bytes(file).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [_json_line(line) for line in text.splitlines()]


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line.split('"')
