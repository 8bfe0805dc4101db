"""From a folder or a table of videos to a manifest. Every file is opened; nothing is dropped
without a word: what cannot be used is in the report with its reason.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from typing import Any

from mien.clips.ingest_folder import Listing, find_clips, subject_finder
from mien.clips.ingest_table import Candidate, Rejected, read_candidates
from mien.clips.labels import LabelError, LabelSet
from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError
from mien.media import storage
from mien.media.decode import ClipInfo, probe_clip
from mien.media.errors import ClipError

Progress = Callable[[int, int], None]
"""Called with the number of files that were opened, and of all files."""

PROBED = ("width", "height", "fps", "duration_s", "has_audio")
"""Further columns that opening the file fills in, unless a table has them already."""

QUARANTINE_SUFFIX = ".quarantine.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What came of an ingestion: the clips that can be used, and the others with their reasons."""

    manifest: Manifest
    quarantined: tuple[Rejected, ...]
    notes: tuple[str, ...] = ()
    """What else the user should know, a sentence each."""
    counts: tuple[str, ...] = ()
    """Of a published data set: what was found beside what was published, a line each."""

    def write(self, uri: str) -> Manifest:
        """Write the manifest, and beside it the list of what was left out (`.quarantine.csv`).

        The list is written even when it is empty, so that an older one does not stay.

        Returns:
            The manifest as it reads from there.

        Raises:
            ManifestError: the place cannot be written to.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Rejected))
        writer.writerows(astuple(rejected) for rejected in self.quarantined)
        try:
            storage.write_bytes_atomically(quarantine_uri(uri), text.getvalue().encode())
        except (storage.StorageError, OSError) as error:
            raise ManifestError(f"cannot write {quarantine_uri(uri)}: {error}") from error
        return self.manifest.write(uri)

    def summary(self) -> str:
        """A few lines for people: clips, labels, people, what was left out and why."""
        labels = Counter(self.manifest.column("label"))
        by_label = ", ".join(
            f"{'no label' if label is None else label} {count}"
            for label, count in sorted(labels.items(), key=lambda pair: str(pair[0]))
        )
        reasons = Counter(rejected.reason for rejected in self.quarantined)
        by_reason = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        lines = [
            f"{len(self.manifest)} clips of {len(self.manifest.subjects) or 'no known'} people"
            + (f": {by_label}" if by_label else ""),
            f"{len(self.quarantined)} left out" + (f": {by_reason}" if by_reason else ""),
        ]
        return "\n".join([*lines, *self.counts, *self.notes])


def quarantine_uri(manifest_uri: str) -> str:
    """Where the list of what was left out lies: beside the manifest."""
    return str(manifest_uri).removesuffix(".parquet") + QUARANTINE_SUFFIX


def ingest_folders(
    root: str | os.PathLike[str],
    *,
    subject_regex: str | None = None,
    label_set: LabelSet | None = None,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> IngestReport:
    """Make a manifest of a folder that holds one folder per class.

    A clip is a video file anywhere below its class's folder, or a folder of pictures there. Its id
    is its path below `root`, its label the name of the class's folder. Hidden files are passed
    over.

    Args:
        root: a path or URI.
        subject_regex: searched in each path below the class's folder; its group `subject`, else
            its first group, else the whole match is the person.
        label_set: clips of other classes are quarantined as unknown_label.
        num_threads: files that are opened at the same time.
        progress: called after each file.

    Raises:
        ManifestError: no such folder, no video in it, or a regex that is wrong or matches nothing.
    """
    folder = storage.absolute(os.fspath(root))
    find_subject = None if subject_regex is None else subject_finder(subject_regex)
    listing = find_clips(folder, find_subject)
    notes = [*_ignored_note(listing)]
    if find_subject is not None:
        notes += _unmatched_note(listing.candidates, str(subject_regex))
    else:
        notes.append("People are not known (no --subject-regex): each clip counts as a person.")
    return ingest_candidates(
        listing.candidates, listing.rejected, notes, folder, label_set, num_threads, progress
    )


def ingest_csv(
    table: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    label_set: LabelSet | None = None,
    num_threads: int = 4,
    encoding: str = "utf-8-sig",
    progress: Progress | None = None,
) -> IngestReport:
    """Make a manifest of a table of clips; `mien.clips.ingest_table` says which columns it knows.

    Clips without consent are quarantined unopened.

    Args:
        table: path or URI of a CSV file with a header; the delimiter is found out.
        root: folder that relative paths are relative to; None: the table's.
        label_set: clips of other classes are quarantined as unknown_label.
        num_threads: files that are opened at the same time.
        encoding: of the table.
        progress: called after each file.

    Raises:
        ManifestError: the table cannot be read, or has no column for the path.
    """
    location = storage.absolute(os.fspath(table))
    folder = storage.parent(location) if root is None else storage.absolute(os.fspath(root))
    candidates, rejected, notes = read_candidates(location, folder, encoding)
    if not any(candidate.row.get("subject_id") for candidate in candidates):
        notes.append("People are not known (no column subject): each clip counts as a person.")
    return ingest_candidates(candidates, rejected, notes, folder, label_set, num_threads, progress)


def ingest_candidates(
    candidates: Sequence[Candidate],
    rejected: Sequence[Rejected],
    notes: list[str],
    folder: str,
    label_set: LabelSet | None,
    num_threads: int,
    progress: Progress | None,
) -> IngestReport:
    """A report of clips that a folder, table or list names: labels first (cheap), then the files.

    Args:
        candidates: clips that are worth opening.
        rejected: what was left out before.
        notes: for the user; more are added.
        folder: absolute; what uris are stored relative to.
        label_set: see `ingest_folders`, as for the rest.
        num_threads: files that are opened at the same time.
        progress: called after each file.
    """
    quarantined = list(rejected)
    usable = []
    for candidate in candidates:
        problem = _label_problem(candidate, label_set)
        if problem is None:
            usable.append(candidate)
        else:
            quarantined.append(problem)
    probes = probe_all(list(dict.fromkeys(c.location for c in usable)), num_threads, progress)
    rows = []
    for candidate in usable:
        outcome = _probed_row(candidate, probes[candidate.location])
        if isinstance(outcome, Rejected):
            quarantined.append(outcome)
        else:
            rows.append(outcome)
    single = sum(row["num_frames"] == 1 for row in rows)
    if single:
        notes.append(f"{single} clips have a single frame; there is no motion in them.")
    return IngestReport(
        manifest=Manifest.from_rows(rows, base=folder),
        quarantined=tuple(sorted(quarantined, key=lambda r: (r.path, r.message))),
        notes=tuple(notes),
    )


def _label_problem(candidate: Candidate, label_set: LabelSet | None) -> Rejected | None:
    if label_set is None:
        return None
    names = [candidate.row.get("label"), *(candidate.row.get("soft_label") or ())]
    try:
        for name in names:
            if name is not None:
                label_set.index(name)
    except LabelError as error:
        return Rejected(path=candidate.path, reason="unknown_label", message=str(error))
    return None


def probe_all(
    locations: Sequence[str], num_threads: int, progress: Progress | None
) -> dict[str, ClipInfo | ClipError]:
    """What each file says of itself, or what is wrong with it; `num_threads` are open at a time.

    Raises:
        ValueError: less than one thread.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads}; at least 1 has to open files")
    outcomes: dict[str, ClipInfo | ClipError] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for location, outcome in zip(locations, pool.map(_probe, locations), strict=True):
                outcomes[location] = outcome
                if progress is not None:
                    progress(len(outcomes), len(locations))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes


def _probe(location: str) -> ClipInfo | ClipError:
    try:
        return probe_clip(location)
    except ClipError as error:
        return error


def _probed_row(
    candidate: Candidate, outcome: ClipInfo | ClipError
) -> Mapping[str, Any] | Rejected:
    if isinstance(outcome, ClipError):
        return Rejected(path=candidate.path, reason=outcome.reason, message=str(outcome))
    start_s = candidate.row.get("start_s")
    if start_s is not None and start_s >= outcome.duration_s:
        return Rejected(
            path=candidate.path,
            reason="outside_file",
            message=f"start_s={start_s:g}, but the file lasts {outcome.duration_s:.3f} s",
        )
    is_whole_file = start_s is None and candidate.row.get("end_s") is None
    row = dict(candidate.row)
    row |= {name: getattr(outcome, name) for name in PROBED if name not in row}
    if row.get("num_frames") is None:
        # Of a part of a file the number of frames is known only after decoding.
        row["num_frames"] = outcome.num_frames if is_whole_file else None
    return row


def _ignored_note(listing: Listing) -> Sequence[str]:
    if not listing.ignored:
        return ()
    total = sum(listing.ignored.values())
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.most_common(8))
    return (f"{total} files that are no video and no clip's frame were passed over: {kinds}.",)


def _unmatched_note(candidates: Sequence[Candidate], regex: str) -> Sequence[str]:
    unmatched = [c.path for c in candidates if c.row.get("subject_id") is None]
    if not unmatched:
        return ()
    if len(unmatched) == len(candidates):
        raise ManifestError(
            f"the subject regex {regex!r} matches no path; the first one is {unmatched[0]!r}. It "
            "is searched in the path below the class's folder"
        )
    return (
        f"The subject regex does not match {len(unmatched)} paths, e.g. {unmatched[0]!r}; each "
        "counts as a person of its own.",
    )
