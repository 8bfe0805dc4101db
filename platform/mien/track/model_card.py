"""The model card: what a package is, what it was trained on, how good it is and what it is not for.

It lies as ``MODEL_CARD.md`` in the package and is the description of the registered version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mien.clips.manifest import Manifest
from mien.clips.splits import PARTS, Split
from mien.evaluate.action_units import ActionUnitScores
from mien.evaluate.report import Report, Table
from mien.evaluate.scorecard import Scorecard
from mien.evaluate.scorecard_report import describe_slice, scorecard_report
from mien.infer.package import PackageInfo
from mien.media.storage import write_bytes_atomically

CARD_FILE = "MODEL_CARD.md"
INTENDED_USE = (
    "Intended use: research on facial behaviour, and tools whose results a person looks at. The "
    "classes are how people label a face in a clip, not what the person in it feels; the "
    "probabilities are no measure of an emotion. Not for decisions about single people (hiring, "
    "teaching, policing, health, border control), nor for people who did not agree to it."
)
INTENDED_USE_OF_UNITS = (
    "Intended use: research on facial behaviour, and tools whose results a person looks at. Action "
    "units are visible movements as trained coders would code them, not what the person feels. Not "
    "for decisions about single people (hiring, teaching, policing, health, border control), nor "
    "for people who did not agree to it."
)


def make_model_card(
    info: PackageInfo, card: Scorecard, manifest: Manifest, split: Split, *, is_own: bool
) -> str:
    """The card of a model that tells classes, as Markdown.

    Args:
        info: of the package.
        card: its scores.
        manifest: the clips that it was scored on.
        split: their parts.
        is_own: they are those of its training, so that the parts say who was trained on.
    """
    scores = scorecard_report(card)
    told = f"{len(info.label_set)} classes: {', '.join(info.label_set.classes)}"
    limits = [*_class_limits(card), *_data_limits(manifest, split, is_own=is_own)]
    about = [*_facts_and_data(info, manifest, split, is_own=is_own), *_given_weights(info)]
    lead = [f"A {info.method} model that tells {told}.", *scores.lead, INTENDED_USE]
    return _card(info, lead, [*about, *scores.tables, _limits(limits)])


def make_unit_card(
    info: PackageInfo,
    scores: Report,
    units: ActionUnitScores,
    manifest: Manifest,
    split: Split,
    *,
    is_own: bool,
) -> str:
    """The card of a model that tells action units alone, as Markdown.

    Args:
        info: of the package.
        scores: the report of its evaluation.
        units: the figures in that.
        manifest, split, is_own: as in `make_model_card`.
    """
    told = f"{len(units.pooled)} action units: {', '.join(unit.name for unit in units.pooled)}"
    limits = [*_unit_limits(units), *_data_limits(manifest, split, is_own=is_own)]
    about = [*_facts_and_data(info, manifest, split, is_own=is_own), *_given_weights(info)]
    lead = [f"A {info.method} model that tells {told}.", *scores.lead, INTENDED_USE_OF_UNITS]
    return _card(info, lead, [*about, *scores.tables, _limits(limits)])


def write_model_card(package: str | Path, text: str) -> None:
    """Puts a card into a package folder.

    Raises:
        StorageError: it can't be written.
    """
    write_bytes_atomically(str(Path(package) / CARD_FILE), text.encode())


def _facts_and_data(
    info: PackageInfo, manifest: Manifest, split: Split, *, is_own: bool
) -> list[Table]:
    return [_facts(info, is_own=is_own), *_data_tables(manifest, split, is_own=is_own)]


def _facts(info: PackageInfo, *, is_own: bool) -> Table:
    data = info.recipe.get("data", {})
    stream = info.prediction_stream
    view = stream.views[0]
    audio = stream.audio
    sound = "none" if audio is None else f"{audio.num_frames} x {audio.num_mels} log-mel"
    rows = [
        ["weights, SHA-256", info.weights_sha256],
        ["trained", f"{info.created} by Mien {info.mien_version}, commit {info.git_sha or '-'}"],
        ["trained on", str(data.get("manifest", "-"))],
        ["clips, SHA-256", info.manifest_hash or "-"],
        ["split, SHA-256", info.split_hash or "-"],
        ["scored on", "people of the same manifest, held out" if is_own else "another manifest"],
        ["input", f"{view.num_frames} frames of {stream.image_size_px} px; sound: {sound}"],
    ]
    return Table(title="Facts", head=["what", ""], rows=rows)


def _data_tables(manifest: Manifest, split: Split, *, is_own: bool) -> list[Table]:
    rows = []
    for part in PARTS if is_own else ("test",):
        clips = manifest.by_ids(getattr(split, part))
        if not len(clips):
            continue
        people = set(clips.column("subject_id")) - {None}
        rows.append([part if is_own else "all", str(len(clips)), str(len(people) or "unknown")])
    parts = Table(title="Clips", head=["part", "clips", "people"], rows=rows)
    licences = Counter(name or "not stated" for name in manifest.column("licence"))
    counts = [[name, str(count)] for name, count in sorted(licences.items())]
    note = "Clips without consent are never read."
    return [parts, Table(title="Licences", head=["licence", "clips"], rows=counts, note=note)]


def _given_weights(info: PackageInfo) -> list[Table]:
    if not info.pretrained:
        return []
    rows = [[part, *_described(facts)] for part, facts in info.pretrained.items()]
    head = ["part", "licence", "what is known"]
    return [Table(title="Weights that training started from", head=head, rows=rows)]


def _described(facts: Mapping[str, str]) -> Sequence[str]:
    rest = [f"{key}: {value}" for key, value in facts.items() if key != "licence"]
    return [facts.get("licence", "not stated"), "; ".join(rest)]


def _card(info: PackageInfo, lead: Sequence[str], tables: Sequence[Table]) -> str:
    return Report(title=f"Model card: {info.method}", lead=lead, tables=tables).to_markdown()


def _limits(found: Sequence[tuple[str, str]]) -> Table:
    return Table(title="Limits", head=["what", ""], rows=[list(row) for row in found])


def _class_limits(card: Scorecard) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if card.worst_slice is not None:
        found.append(("worst slice", describe_slice(card.worst_slice)))
    weakest = min(
        (item for item in card.headline.per_class if item.recall is not None),
        key=lambda item: item.recall if item.recall is not None else 1.0,
    )
    found.append(("weakest class", f"{weakest.name}: recall {weakest.recall:.3f}"))
    if card.headline.absent:
        found.append(("never tested", ", ".join(card.headline.absent)))
    small = sorted({item.column for item in card.slices if not item.is_large})
    if small:
        found.append(("too few clips to judge some parts of", ", ".join(small)))
    return found


def _unit_limits(units: ActionUnitScores) -> list[tuple[str, str]]:
    scored = [unit for unit in units.pooled if unit.f1 is not None]
    weakest = min(scored, key=lambda unit: unit.f1 or 0.0)
    found = [("weakest unit", f"{weakest.name}: F1 {weakest.f1:.3f}")]
    never = [unit.name for unit in units.pooled if not unit.num_positive]
    if never:
        found.append(("never seen present", ", ".join(never)))
    return found


def _data_limits(manifest: Manifest, split: Split, *, is_own: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    unknown = _missing(manifest)
    if unknown:
        found.append(("not known about the clips", ", ".join(unknown)))
    if not is_own:
        found.append(("training people", "not compared with those who were scored"))
    return found + [("about the split", note) for note in split.notes]


def _missing(manifest: Manifest) -> list[str]:
    """Facts about people that nobody can look for a bias in."""
    names: set[str] = set(manifest.table.column_names)
    wanted: dict[str, tuple[str, ...]] = {
        "age": ("age",),
        "sex or gender": ("sex", "gender"),
        "skin or ancestry": ("skin", "ancestry", "ethnicity"),
    }

    def has_values(column: str) -> bool:
        values: list[Any] = manifest.column(column) if column in names else []
        return any(value is not None for value in values)

    return [what for what, columns in wanted.items() if not any(map(has_values, columns))]
