"""Figures of a manifest: balance of classes and people, lengths, sizes, sound, consent, licences.

Only the table is read, no media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.clips.manifest import Manifest

MIN_CLIPS_OF_CLASS = 10
MAX_SHARE_OF_PERSON = 0.2
MAX_IMBALANCE = 20.0
NAMED = 5
"""Names that a warning shows; the rest is counted."""
ALL = "all"
NO_LABEL = "(no label)"
NOWHERE = "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a number is distributed over clips or people."""

    known: int
    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Spread | None:
        """The spread of the values that are not NaN; None if there are none."""
        known = values[~np.isnan(values)]
        if not known.size:
            return None
        return cls(
            known=int(known.size),
            minimum=float(known.min()),
            median=float(np.median(known)),
            maximum=float(known.max()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A split, a fold, or all clips."""

    name: str
    num_clips: int
    num_people: int
    clips_of_class: Mapping[str, int]
    """`NO_LABEL` counts clips without one."""
    people_of_class: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestStatistics:
    """What a manifest holds."""

    whole: Part
    parts: tuple[Part, ...]
    """By split, or by fold where there are no splits; empty where there is neither."""
    part_kind: str
    """split or fold"""
    clips_per_person: Spread | None
    coverage: float | None
    """Share of the pairs of class and person that have a clip; None without labels or people."""
    duration_s: Spread | None
    fps: Spread | None
    sizes: Mapping[str, int]
    """Clips of each width x height."""
    with_sound: int
    without_sound: int
    """Clips whose column `has_audio` is false, and that have no `audio_uri`."""
    without_consent: int
    licences: Mapping[str, int]
    warnings: tuple[str, ...]


def describe_clips(manifest: Manifest) -> ManifestStatistics:
    """The statistics of a manifest's rows."""
    labels = [NO_LABEL if x is None else x for x in manifest.column("label")]
    people = manifest.column("subject_id")
    part_kind, place = _places(manifest)
    whole = _part(ALL, labels, people, range(len(manifest)))
    names = sorted(set(place) - {NOWHERE}, key=_part_order)
    if NOWHERE in place and names:
        names.append(NOWHERE)
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row, name in enumerate(place):
        if name in rows:
            rows[name].append(row)
    parts = tuple(_part(name, labels, people, rows[name]) for name in names)
    with_sound, without_sound = _sound(manifest)
    sizes = zip(_optional(manifest, "width"), _optional(manifest, "height"), strict=True)
    clips_of_person = Counter(person for person in people if person is not None)
    return ManifestStatistics(
        whole=whole,
        parts=parts,
        part_kind=part_kind,
        clips_per_person=Spread.of(np.asarray(list(clips_of_person.values()), dtype=np.float64)),
        coverage=_coverage(labels, people),
        duration_s=Spread.of(_durations_s(manifest)),
        fps=Spread.of(_numbers(manifest, "fps")),
        sizes=Counter(f"{w} x {h}" for w, h in sizes if w is not None and h is not None),
        with_sound=with_sound,
        without_sound=without_sound,
        without_consent=manifest.column("consent").count(False),
        licences=Counter(x for x in manifest.column("licence") if x is not None),
        warnings=tuple(_warnings(whole, parts, clips_of_person, people, place, part_kind)),
    )


def _places(manifest: Manifest) -> tuple[str, list[str]]:
    """What divides the clips, and the part of each."""
    for kind in ("split", "fold"):
        values = manifest.column(kind)
        if any(value is not None for value in values):
            return kind, [NOWHERE if value is None else str(value) for value in values]
    return "split", [NOWHERE] * len(manifest)


def _part_order(name: str) -> tuple[int, int, str]:
    known = ("train", "val", "test")
    if name in known:
        return known.index(name), 0, name
    return len(known), int(name) if name.isdecimal() else 0, name


def _part(
    name: str, labels: Sequence[str], people: Sequence[str | None], rows: Sequence[int]
) -> Part:
    pairs = {(labels[row], people[row]) for row in rows if people[row] is not None}
    return Part(
        name=name,
        num_clips=len(rows),
        num_people=len({people[row] for row in rows} - {None}),
        clips_of_class=Counter(labels[row] for row in rows),
        people_of_class=Counter(label for label, _ in pairs),
    )


def _coverage(labels: Sequence[str], people: Sequence[str | None]) -> float | None:
    pairs = {
        (label, person)
        for label, person in zip(labels, people, strict=True)
        if person is not None and label != NO_LABEL
    }
    cells = len({label for label, _ in pairs}) * len({person for _, person in pairs})
    return len(pairs) / cells if cells else None


def _optional(manifest: Manifest, name: str) -> list[Any]:
    if name not in manifest.table.column_names:
        return [None] * len(manifest)
    return manifest.column(name)


def _numbers(manifest: Manifest, name: str) -> npt.NDArray[np.float64]:
    values = _optional(manifest, name)
    return np.asarray([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def _durations_s(manifest: Manifest) -> npt.NDArray[np.float64]:
    """From the times of the clip, else those of its file, else its frames; NaN where unknown."""
    start_s = np.nan_to_num(_numbers(manifest, "start_s"))
    end_s = _numbers(manifest, "end_s")
    file_s = _numbers(manifest, "duration_s")
    from_frames = _numbers(manifest, "num_frames") / _numbers(manifest, "fps")
    stop_s = np.where(np.isnan(end_s), file_s, end_s)
    return np.where(np.isnan(stop_s), from_frames, stop_s - start_s)


def _sound(manifest: Manifest) -> tuple[int, int]:
    claims = _optional(manifest, "has_audio")
    separate = manifest.column("audio_uri")
    with_sound = sum(
        bool(claim) or uri is not None for claim, uri in zip(claims, separate, strict=True)
    )
    without = sum(
        claim is not None and not claim and uri is None
        for claim, uri in zip(claims, separate, strict=True)
    )
    return with_sound, without


def _warnings(
    whole: Part,
    parts: Sequence[Part],
    clips_of_person: Mapping[str, int],
    people: Sequence[str | None],
    place: Sequence[str],
    part_kind: str,
) -> list[str]:
    classes = {name: n for name, n in whole.clips_of_class.items() if name != NO_LABEL}
    warnings = _class_warnings(classes, parts, part_kind)
    unlabelled = whole.clips_of_class.get(NO_LABEL, 0)
    if unlabelled:
        warnings.append(f"{unlabelled} of {whole.num_clips} clips have no label")
    nobody = sum(person is None for person in people)
    if nobody:
        warnings.append(
            f"{nobody} clips have no subject_id: nobody can promise that a person is in one "
            f"{part_kind} only"
        )
    fair_share = 2 / max(1, len(clips_of_person))
    for person, count in sorted(clips_of_person.items(), key=lambda item: -item[1]):
        share = count / whole.num_clips
        if share > max(MAX_SHARE_OF_PERSON, fair_share):
            warnings.append(f"{person} has {count} clips, {share:.0%} of all")
    places: dict[str, set[str]] = {}
    for someone, name in zip(people, place, strict=True):
        if someone is not None and name != NOWHERE:
            places.setdefault(someone, set()).add(name)
    shared = sorted(person for person, names in places.items() if len(names) > 1)
    if shared:
        warnings.append(
            f"{len(shared)} people are in two {part_kind}s: {_few(shared)}; scores would be of "
            "people that the model has seen"
        )
    return warnings


def _class_warnings(classes: Mapping[str, int], parts: Sequence[Part], part_kind: str) -> list[str]:
    warnings = []
    rare = sorted(name for name, count in classes.items() if count < MIN_CLIPS_OF_CLASS)
    if rare:
        listed = _few([f"{name} ({classes[name]})" for name in rare])
        warnings.append(f"classes with fewer than {MIN_CLIPS_OF_CLASS} clips: {listed}")
    if classes and max(classes.values()) > MAX_IMBALANCE * min(classes.values()):
        ratio = max(classes.values()) / min(classes.values())
        warnings.append(f"the largest class has {ratio:.0f} times the clips of the smallest")
    for part in parts:
        missing = sorted(set(classes) - set(part.clips_of_class))
        if missing and part.name != NOWHERE and set(part.clips_of_class) != {NO_LABEL}:
            warnings.append(f"{part_kind} {part.name} has no clip of: {_few(missing)}")
    return warnings


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
