"""Label sets: which class each logit stands for. A label set travels with every model.

Class order differs between releases of the same data set (datasets_and_metrics, sections 5.1-5.6),
so Mien stores class *names* in manifests and turns them into logit indices here only.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass


class LabelError(ValueError):
    """A label outside its label set, or a label set that is not one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """An ordered set of class names.

    Raises:
        LabelError: no class, an empty name, or a name given twice.
    """

    name: str
    """What people call this set, e.g. `dfew7`."""
    classes: tuple[str, ...]
    """Class names; position = index of the logit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes:
            raise LabelError(f"label set {self.name!r} has no classes; give at least one name")
        bad = [c for c in self.classes if not isinstance(c, str) or not c.strip()]
        if bad:
            raise LabelError(f"label set {self.name!r}: class names must be words, got {bad!r}")
        twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if twice:
            raise LabelError(f"label set {self.name!r} names classes twice: {', '.join(twice)}")

    def __len__(self) -> int:
        return len(self.classes)

    def __contains__(self, label: object) -> bool:
        return label in self.classes

    def index(self, label: str) -> int:
        """The logit index of a class name.

        Raises:
            LabelError: unknown name; the message holds the nearest one and all classes.
        """
        if label in self.classes:
            return self.classes.index(label)
        near = difflib.get_close_matches(str(label).lower(), self.classes, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise LabelError(
            f"unknown label {label!r} for label set {self.name!r}.{hint} "
            f"Its classes are: {', '.join(self.classes)}."
        )

    def to_json(self) -> str:
        """The label set as one line of JSON."""
        return json.dumps({"name": self.name, "classes": list(self.classes)})

    @classmethod
    def from_json(cls, text: str) -> LabelSet:
        """Read what `to_json` wrote.

        Raises:
            LabelError: not JSON, or not a label set.
        """
        try:
            data = json.loads(text)
            return cls(name=data["name"], classes=tuple(data["classes"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise LabelError(
                f'not a label set: {text[:80]!r}; expected {{"name": ..., "classes": [...]}}'
            ) from error

    @classmethod
    def from_labels(cls, name: str, labels: Iterable[str | None]) -> LabelSet:
        """The label set of the labels that occur, sorted by name; nulls are skipped."""
        return cls(name=name, classes=tuple(sorted({x for x in labels if x is not None})))


DFEW7 = LabelSet(
    name="dfew7",
    classes=("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear"),
)
"""DFEW's file ids 1-7 minus 1 (section 5.1)."""

FERV39K7 = LabelSet(name="ferv39k7", classes=DFEW7.classes)
"""FERV39k has no official ids; MAE-DFER and Former-DFER use DFEW's order (section 5.2)."""

MAFW11 = LabelSet(
    name="mafw11",
    classes=(*DFEW7.classes, "contempt", "anxiety", "helplessness", "disappointment"),
)
"""The order of the MMA-DFER lists: DFEW's seven first, so that the corpora can be crossed."""

AFFECTNET8 = LabelSet(
    name="affectnet8",
    classes=(
        "neutral",
        "happiness",
        "sadness",
        "surprise",
        "fear",
        "disgust",
        "anger",
        "contempt",
    ),
)
"""AffectNet's ids 0-7 (section 5.4)."""

RAFDB7 = LabelSet(
    name="rafdb7",
    classes=("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
)
"""RAF-DB basic ids 1-7 minus 1 (section 5.5)."""

AFFWILD2_EXPR8 = LabelSet(
    name="affwild2_expr8",
    classes=(
        "neutral",
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "other",
    ),
)
"""ABAW expression track, ids 0-7 (section 5.6)."""

AFFECTNET7 = LabelSet(name="affectnet7", classes=AFFECTNET8.classes[:7])
"""AffectNet without contempt (section 5.4)."""

RAFDB_COMPOUND11 = LabelSet(
    name="rafdb_compound11",
    classes=(
        "happily surprised",
        "happily disgusted",
        "sadly fearful",
        "sadly angry",
        "sadly surprised",
        "sadly disgusted",
        "fearfully angry",
        "fearfully surprised",
        "angrily surprised",
        "angrily disgusted",
        "disgustedly surprised",
    ),
)
"""RAF-DB compound ids 1-11 minus 1, in the order that users' codes of the set list them."""

CFEE22 = LabelSet(
    name="cfee22",
    classes=(
        *("neutral", "happiness", "sadness", "fear", "anger", "surprise", "disgust"),
        *("happily surprised", "happily disgusted", "sadly fearful", "sadly angry"),
        *("sadly surprised", "sadly disgusted", "fearfully angry", "fearfully surprised"),
        *("fearfully disgusted", "angrily surprised", "angrily disgusted"),
        *("disgustedly surprised", "appalled", "hatred", "awed"),
    ),
)
"""CFEE's categories in the order of its paper; ids on disk are others (`readers/cfee.py`)."""

CREMA6 = LabelSet(
    name="crema6",
    classes=("anger", "disgust", "fear", "happiness", "neutral", "sadness"),
)
"""CREMA-D in the order of its tables of votes (A, D, F, H, N, S)."""

UNITS_ONLY = LabelSet(name="units_only", classes=("not_learnt",))
"""Of models that learn action units from clips without any class: networks have a logit, nobody
taught it, and its name says so."""

NOTHING_LABELLED = LabelSet(name="nothing_labelled", classes=UNITS_ONLY.classes)
"""Of models that are pretrained on clips without any label or code."""

KNOWN_LABEL_SETS = {
    s.name: s
    for s in (
        *(DFEW7, FERV39K7, MAFW11, AFFECTNET8, AFFECTNET7, RAFDB7, RAFDB_COMPOUND11),
        *(AFFWILD2_EXPR8, CFEE22, CREMA6),
    )
}
"""The built-in label sets by name."""
