"""Copies of clips that are fit for sharing: one face each, no names, nothing about the camera.

A copy shows the face that was chosen and nobody else, plays the sound, plays it at another pitch or
is silent, and carries no tags. Clips, people and sources get new names; the file that leads back
lies elsewhere (`mien.clips.anonymise_ids`). Labels, splits and folds stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from mien.clips.anonymise_clip import CopyOptions as CopyOptions
from mien.clips.anonymise_clip import NoFaceError, anonymous_copy
from mien.clips.anonymise_ids import AnonymiseError, NameMapping, begin_mapping, check_apart
from mien.clips.anonymise_sound import semitones_of
from mien.clips.manifest import FILE_NAME, ClipRef, Manifest
from mien.clips.schema import SCHEMA, unknown_column
from mien.media import storage
from mien.media.decode import probe_clip
from mien.media.errors import ClipError
from mien.media.faces import FaceDetector

KEPT_COLUMNS = (
    "label",
    "soft_label",
    "action_units",
    "fold",
    "split",
    "consent",
    "licence",
)
"""Columns that are shared as they are; all others are replaced or left out."""
_CLIPS_FOLDER = "clips"
_MIN_TELLING_CHARS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousClips:
    """What was made."""

    manifest: Manifest | None
    """Of the copies, in the order of their new names; None if there are none."""
    num_made: int
    num_there_already: int
    """Copies of an earlier run that was interrupted."""
    left_out: dict[str, str]
    """Clips of which there is no copy, by their old name, and why."""


def anonymise_clips(
    manifest: Manifest,
    out: str,
    *,
    mapping: str,
    options: CopyOptions,
    keep_columns: Sequence[str] = (),
    num_threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> AnonymousClips:
    """Write anonymous copies of all clips, and a manifest of them.

    Started again with the same arguments after an interruption, it makes what is missing. A clip
    that can't be decoded, or in which the person is not found, is left out.

    Args:
        manifest: The clips; see `mien.clips.person_data` for those that may be used.
        out: Folder or URI for the copies: ``clips/NAME.mp4`` and ``manifest.parquet``, written
            last.
        mapping: Local file for the names, outside of ``out``; readable for its owner only.
        options: What a copy shows and plays.
        keep_columns: Further columns of the manifest that are to be shared.
        num_threads: Clips that are worked on at the same time.
        progress: Called with the number of clips that are done and of all.

    Raises:
        AnonymiseError: the mapping would be shared or belongs to another run, or a column that is
            to be kept names clips or people.
        ManifestError: no such column.
        StorageError: a storage can't be reached.
    """
    _check(manifest, options, keep_columns)
    out = storage.absolute(out)
    path = check_apart(mapping, out)
    names = begin_mapping(
        path,
        made_of=manifest.content_hash(),
        out=out,
        options={**asdict(options), "keep_columns": list(keep_columns)},
    )
    copies = [_Copy.of(ref, names) for ref in manifest]
    names.write(path)
    there_already = _finished(out)
    run = _Run(out, options, there_already)
    num_frames: dict[int, int] = {}
    for row, result in run.all_of(copies, num_threads, progress):
        if isinstance(result, str):
            names.left_out[copies[row].ref.clip_id] = result
        else:
            num_frames[row] = result
    names.write(path)
    num_kept = sum(copies[row].file in there_already for row in num_frames)
    return AnonymousClips(
        manifest=_write_manifest(manifest, copies, num_frames, keep_columns, out),
        num_made=len(num_frames) - num_kept,
        num_there_already=num_kept,
        left_out=names.left_out,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A clip and the new names of what is in its row."""

    ref: ClipRef
    clip_id: str
    subject_id: str | None
    source: str | None
    semitones: float

    @classmethod
    def of(cls, ref: ClipRef, names: NameMapping) -> _Copy:
        return cls(
            ref=ref,
            clip_id=names.rename("clip", ref.clip_id),
            subject_id=None if ref.subject_id is None else names.rename("person", ref.subject_id),
            source=None if ref.source is None else names.rename("source", ref.source),
            # The same for all clips of a person, so that voices stay comparable.
            semitones=semitones_of(names.share("voice", ref.subject_id or ref.clip_id)),
        )

    @property
    def file(self) -> str:
        return f"{_CLIPS_FOLDER}/{self.clip_id}.mp4"


class _Run:
    """Makes copies in several threads: decoder, network and encoder work outside Python's lock."""

    def __init__(self, out: str, options: CopyOptions, there_already: set[str]) -> None:
        self._out = out
        self._options = options
        self._there_already = there_already
        self._detector = FaceDetector()

    def all_of(
        self,
        copies: Sequence[_Copy],
        num_threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[int, int | str]]:
        """For each copy its number of frames, or why there is none."""
        with ThreadPoolExecutor(num_threads) as pool:
            waiting: list[tuple[int, Future[int | str]]] = []
            try:
                for row, copy in enumerate(copies):
                    waiting.append((row, pool.submit(self._make, copy)))
                for row, future in waiting:
                    yield row, future.result()
                    if progress is not None:
                        progress(row + 1, len(copies))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _make(self, copy: _Copy) -> int | str:
        location = storage.join(self._out, copy.file)
        if copy.file in self._there_already:
            return probe_clip(location).num_frames
        try:
            made = anonymous_copy(copy.ref, self._options, self._detector, semitones=copy.semitones)
        except ClipError as error:
            return f"{error.reason}: {error}"
        except NoFaceError as error:
            return f"no_face: {error}"
        storage.write_bytes_atomically(location, made.mp4)
        return made.num_frames


def _finished(out: str) -> set[str]:
    """Files of an earlier run; a file is there as a whole or not at all."""
    files = storage.list_files(out)
    for file in files:
        if file.endswith(".part"):
            storage.remove(storage.join(out, file))
    return {file for file in files if file.endswith(".mp4")}


def _write_manifest(
    manifest: Manifest,
    copies: Sequence[_Copy],
    num_frames: dict[int, int],
    keep_columns: Sequence[str],
    out: str,
) -> Manifest | None:
    # The order of the rows would tell where in the old manifest a clip stood.
    rows = sorted(num_frames, key=lambda row: copies[row].clip_id)
    if not rows:
        return None
    replaced: dict[str, list[Any]] = {
        "clip_id": [copies[row].clip_id for row in rows],
        "uri": [copies[row].file for row in rows],
        "num_frames": [num_frames[row] for row in rows],
        "subject_id": [copies[row].subject_id for row in rows],
        "source": [copies[row].source for row in rows],
    }
    types = {field.name: field.type for field in SCHEMA}
    columns = {name: pa.array(values, types[name]) for name, values in replaced.items()}
    shared = list(dict.fromkeys([*KEPT_COLUMNS, *keep_columns]))
    kept = manifest.table.select(shared).take(pa.array(rows))
    columns |= {name: kept[name] for name in kept.column_names}
    location = storage.join(out, FILE_NAME)
    Manifest(pa.table(columns), base=out).write(location)
    return Manifest.read(location)


def _check(manifest: Manifest, options: CopyOptions, keep_columns: Sequence[str]) -> None:
    if options.size_px % 2 or not 32 <= options.size_px <= 1024:
        raise AnonymiseError(
            f"crops of {options.size_px} px: expected an even number from 32 to 1024"
        )
    if options.face_rule == "given_box":
        without = [ref.clip_id for ref in manifest if ref.face_box is None]
        if without:
            raise AnonymiseError(
                f"the face rule given_box needs the column face_box, which is empty for "
                f"{len(without)} clips: {', '.join(without[:5])}"
            )
    for name in keep_columns:
        if name in KEPT_COLUMNS:
            continue
        if name not in manifest.table.column_names:
            raise unknown_column(name, manifest.table.column_names)
        if name in SCHEMA.names:
            raise AnonymiseError(
                f"the column {name} says where a clip or who a person is: it is replaced or left "
                "out and can't be kept"
            )
        _check_says_nothing(manifest, name)


def _check_says_nothing(manifest: Manifest, name: str) -> None:
    """Raise if a column repeats its row's clip, person, source or file."""
    for ref, value in zip(manifest, manifest.column(name), strict=True):
        file = PurePosixPath(ref.uri).stem
        text = str(value).casefold()
        for what, old in (
            ("clip_id", ref.clip_id),
            ("subject_id", ref.subject_id),
            ("source", ref.source),
            ("file", file),
        ):
            telling = (old or "").casefold()
            if telling and (
                text == telling or (len(telling) >= _MIN_TELLING_CHARS and telling in text)
            ):
                raise AnonymiseError(
                    f"the column {name} holds {value!r:.100} for the clip {ref.clip_id!r}: that "
                    f"names its {what}. Leave it out of --keep-columns"
                )
