"""Groups of clips that show the same video, and what that means for splits, labels and people."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mien.clips.inspect.findings import Finding
from mien.clips.inspect.fingerprint import Fingerprint
from mien.clips.inspect.near_duplicates import Looks, find_same_looks
from mien.clips.manifest import ClipRef, Manifest

NAMED = 3
"""Clips of a group that a finding names."""
SLACK_S = 1e-3
"""Pieces that share no more than this don't overlap: times are rounded."""


@dataclass(slots=True)
class MediaIndex:
    """Digests and fingerprints of a manifest's clips by row."""

    digests: dict[int, str] = field(default_factory=dict)
    looks: dict[int, Fingerprint] = field(default_factory=dict)
    """Rows that decode and are not blank."""

    def add(self, row: int, digest: str | None, looks: Fingerprint | None) -> None:
        """Takes what was found out about a row."""
        if digest is not None:
            self.digests[row] = digest
        if looks is not None and not looks.is_blank:
            self.looks[row] = looks


@dataclass(frozen=True, slots=True)
class Link:
    """Two rows that show the same."""

    first: int
    second: int
    kind: str
    """duplicate or overlap"""
    why: str


def find_duplicates(manifest: Manifest, media: MediaIndex) -> list[Finding]:
    """A finding for each clip that shows what another one shows.

    Rows with the same file and time but different face boxes are different people in one picture,
    and no duplicates.
    """
    refs = {row: manifest.ref(row) for row in media.digests}
    links = [*_same_file(refs, media.digests), *_same_looks(refs, media)]
    groups = _Groups()
    for link in links:
        groups.unite(link.first, link.second)
    links_of: dict[int, list[Link]] = defaultdict(list)
    for link in links:
        links_of[link.first].append(link)
        links_of[link.second].append(link)
    parts = _parts(manifest)
    members: dict[int, list[int]] = defaultdict(list)
    for row in sorted(links_of):
        members[groups.root(row)].append(row)
    findings: list[Finding] = []
    for rows in members.values():
        findings += _group_findings([refs[row] for row in rows], rows, links_of, parts, refs)
    return findings


class _Groups:
    """Union-find over rows."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, row: int) -> int:
        """The row that stands for a row's group."""
        while (parent := self._parent.get(row, row)) != row:
            self._parent[row] = self._parent.get(parent, parent)
            row = parent
        return row

    def unite(self, one: int, other: int) -> None:
        """Makes the groups of two rows one."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low


def _same_file(refs: dict[int, ClipRef], digests: dict[int, str]) -> Iterator[Link]:
    """Rows with the same bytes whose times overlap; a row is linked to the longest-lasting before.

    Sorted by start, only one earlier row has to be looked at: no comparison of all with all.
    """
    by_media: dict[tuple[str, object], list[int]] = defaultdict(list)
    for row, digest in digests.items():
        by_media[digest, refs[row].face_box].append(row)
    for rows in by_media.values():
        rows.sort(key=lambda row: (refs[row].start_s or 0.0, row))
        furthest = rows[0]
        for row in rows[1:]:
            start_s = refs[row].start_s or 0.0
            if start_s < _end_s(refs[furthest]) - SLACK_S:
                yield _file_link(refs, furthest, row)
            if _end_s(refs[row]) > _end_s(refs[furthest]):
                furthest = row


def _file_link(refs: dict[int, ClipRef], one: int, other: int) -> Link:
    times = [(refs[row].start_s or 0.0, _end_s(refs[row])) for row in (one, other)]
    if times[0] == times[1]:
        return Link(one, other, "duplicate", "the same bytes")
    return Link(one, other, "overlap", "an overlapping piece of the same file")


def _end_s(ref: ClipRef) -> float:
    return math.inf if ref.end_s is None else ref.end_s


def _same_looks(refs: dict[int, ClipRef], media: MediaIndex) -> Iterator[Link]:
    """Rows whose videos look the same, one row standing for all that are byte by byte the same."""
    first_of: dict[object, int] = {}
    for row in sorted(media.looks):
        ref = refs[row]
        first_of.setdefault((media.digests[row], ref.start_s, ref.end_s), row)
    rows = np.asarray(sorted(first_of.values()), dtype=np.int64)
    if len(rows) < 2:
        return
    prints = [media.looks[int(row)] for row in rows]
    looks = Looks(
        picture=np.stack([one.picture for one in prints]),
        motion=np.stack([one.motion for one in prints]),
        movement=np.asarray([one.movement for one in prints], dtype=np.float32),
    )
    pairs = find_same_looks(looks)
    for first, second, cosine in zip(pairs.first, pairs.second, pairs.cosine, strict=True):
        one, other = int(rows[first]), int(rows[second])
        # Pieces of one file were compared by their times.
        if media.digests[one] != media.digests[other]:
            yield Link(one, other, "duplicate", f"nearly the same video, similarity {cosine:.2f}")


def _parts(manifest: Manifest) -> list[object]:
    """The split of each row, or its fold where there is no split; None: neither."""
    splits = manifest.column("split")
    return splits if any(split is not None for split in splits) else manifest.column("fold")


def _group_findings(
    group: Sequence[ClipRef],
    rows: Sequence[int],
    links_of: dict[int, list[Link]],
    parts: Sequence[object],
    refs: dict[int, ClipRef],
) -> Iterator[Finding]:
    """A finding for each clip of a group."""
    where = sorted({str(parts[row]) for row in rows if parts[row] is not None})
    suffix = "_across_splits" if len(where) > 1 else ""
    remarks = [f"in {' and '.join(where)}"] if suffix else []
    remarks += _disagreements(group)
    name = hashlib.sha256(min(ref.clip_id for ref in group).encode()).hexdigest()[:8]
    for row, ref in zip(rows, group, strict=True):
        links = sorted(links_of[row], key=lambda link: link.kind != "duplicate")
        named = [
            f"{refs[other].clip_id} ({link.why})"
            for link in links[:NAMED]
            if (other := link.second if link.first == row else link.first) != row
        ]
        more = f" and {len(links) - NAMED} more" if len(links) > NAMED else ""
        detail = "; ".join([f"as {', '.join(named)}{more}", *remarks])
        # The kind is that of the closest relation, so that a leak of copies is not called overlap.
        yield Finding.of(ref, links[0].kind + suffix, detail, group=name)


def _disagreements(group: Sequence[ClipRef]) -> list[str]:
    remarks = []
    for what, values in (
        ("labels", {ref.label for ref in group}),
        ("people", {ref.subject_id for ref in group}),
    ):
        known = sorted(value for value in values if value is not None)
        if len(known) > 1:
            remarks.append(f"{what} differ: {', '.join(known)}")
    return remarks
