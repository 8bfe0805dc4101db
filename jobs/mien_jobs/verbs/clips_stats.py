"""``mien clips stats MANIFEST``: figures of a manifest, and what to beware of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mien_jobs.tables import plain_table, print_table

if TYPE_CHECKING:
    from mien.clips.inspect.statistics import ManifestStatistics, Part, Spread

_SIZES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which manifest."""
    parser.add_argument("manifest", help="manifest file or folder, path or URI")


def run(args: argparse.Namespace) -> int:
    """Prints tables and warnings; opens no media."""
    from mien.clips.inspect.statistics import describe_clips
    from mien.clips.manifest import Manifest

    manifest = Manifest.read(args.manifest)
    if len(manifest) == 0:
        raise ValueError(f"{args.manifest} holds no clips")
    found = describe_clips(manifest)
    print_classes(found)
    print(plain_table(facts(found)))
    for warning in found.warnings:
        print(f"warning: {warning}")
    return 0


def print_classes(found: ManifestStatistics) -> None:
    """Clips (people) of each class, in each part."""
    parts = [found.whole, *found.parts]
    prefix = "fold " if found.part_kind == "fold" else ""
    names = ["class", *(prefix * (part is not found.whole) + part.name for part in parts)]
    rows = [
        [label, *(_cell(part, label) for part in parts)]
        for label in sorted(found.whole.clips_of_class)
    ]
    rows.append(["all classes", *(f"{part.num_clips} ({part.num_people})" for part in parts)])
    print("clips (people)")
    print_table(names, rows, numbers=names[1:])


def _cell(part: Part, label: str) -> str:
    clips = part.clips_of_class.get(label, 0)
    return f"{clips} ({part.people_of_class.get(label, 0)})" if clips else "-"


def facts(found: ManifestStatistics) -> list[tuple[str, str]]:
    """What is not about classes, as names and values."""
    total = found.whole.num_clips
    known_sound = found.with_sound + found.without_sound
    lines = [
        ("clips a person", _spread(found.clips_per_person, "", found.whole.num_people, "people")),
        (
            "class x person",
            "unknown" if found.coverage is None else f"{found.coverage:.0%} of pairs have a clip",
        ),
        ("duration", _spread(found.duration_s, " s", total, "clips")),
        ("frames/s", _spread(found.fps, "", total, "clips")),
        ("size in px", _counts(found.sizes, total)),
        (
            "sound",
            f"{found.with_sound} of {known_sound} clips"
            + (f", unknown for {total - known_sound}" if known_sound < total else "")
            if known_sound
            else "unknown",
        ),
        ("consent", f"{total - found.without_consent} of {total} clips"),
        ("licence", _counts(found.licences, total)),
    ]
    return lines


def _spread(spread: Spread | None, unit: str, total: int, what: str) -> str:
    if spread is None:
        return "unknown"
    rest = f", unknown for {total - spread.known}" if spread.known < total else ""
    return (
        f"{spread.minimum:.4g} to {spread.maximum:.4g}{unit}, median {spread.median:.4g}{unit} "
        f"({spread.known} {what}{rest})"
    )


def _counts(counts: object, total: int) -> str:
    assert hasattr(counts, "items")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{name} ({count})" for name, count in ordered[:_SIZES]]
    if len(ordered) > _SIZES:
        listed.append(f"{len(ordered) - _SIZES} others")
    unknown = total - sum(count for _, count in ordered)
    if unknown:
        listed.append(f"not stated ({unknown})" if ordered else "not stated")
    return ", ".join(listed)
