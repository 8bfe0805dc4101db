"""What can be wrong with the clips of a manifest."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from mien.clips.manifest import ClipRef
from mien.media.errors import REASONS
from mien.media.storage import write_bytes_atomically

KINDS: dict[str, tuple[bool, str]] = {
    "duplicate_across_splits": (True, "the same video is in two splits or folds: a leak"),
    "duplicate": (False, "the same video more than once"),
    "overlap_across_splits": (True, "pieces of one file that overlap, in two splits: a leak"),
    "overlap": (False, "pieces of one file that overlap"),
    "frame_count": (True, "another number of frames than the manifest says"),
    "missing_audio": (True, "no sound where the manifest says that there is"),
    "unexpected_audio": (True, "sound where the manifest says that there is none"),
    "damaged": (False, "decodes, but not all of it"),
    "silent_audio": (False, "a sound track with nothing in it"),
    "no_face": (False, "no face in the frames that were looked at"),
    "blank_picture": (False, "nothing to see"),
} | {reason: (True, "can't be used: " + reason.replace("_", " ")) for reason in REASONS}
"""Kind of a finding: whether it is an error (else a warning), and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with one clip."""

    clip_id: str
    severity: str
    """error or warning"""
    kind: str
    """A key of `KINDS`."""
    detail: str
    group: str = ""
    """The same for all clips that show one video."""
    uri: str = ""

    @classmethod
    def of(cls, ref: ClipRef, kind: str, detail: str, group: str = "") -> Finding:
        """A finding about a clip."""
        severity = "error" if KINDS[kind][0] else "warning"
        return cls(
            clip_id=ref.clip_id,
            severity=severity,
            kind=kind,
            detail=detail,
            group=group,
            uri=ref.uri,
        )


def count_by_kind(findings: Sequence[Finding]) -> list[tuple[str, str, int, str]]:
    """Severity, kind, number of clips and meaning of each kind that occurs, errors first."""
    counts = Counter((finding.severity, finding.kind) for finding in findings)
    return [
        (severity, kind, count, KINDS[kind][1])
        for (severity, kind), count in sorted(counts.items(), key=lambda c: (c[0][0], -c[1]))
    ]


def write_findings(location: str, findings: Sequence[Finding]) -> None:
    """Writes a CSV file with a row for each finding, whole or not at all.

    Raises:
        StorageError: the place can't be written to.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Finding))
    writer.writerows(astuple(finding) for finding in findings)
    write_bytes_atomically(location, text.getvalue().encode())
