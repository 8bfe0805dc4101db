"""Published protocols: which folds, which scores averaged how, and what others report.

Figures are those of `methods/*.md` (shared notes with their sources); each names how it is known.
All are in per cent, as papers print them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mien.clips.manifest import Manifest

ScoreName = Literal["uar", "war", "macro_f1", "au_f1"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A row of somebody's table."""

    method: str
    scores: Mapping[ScoreName, float]
    """Per cent."""
    by_unit: Mapping[str, float] = field(default_factory=dict)
    """F1 of each action unit in per cent, where the table has them."""
    inputs: str = "video"
    source: str = ""
    """Where the figure was read; ``recalled`` figures are not confirmed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a data set is reported on."""

    name: str
    data: str
    """What to type after ``mien ingest`` to get its manifest."""
    scores: tuple[ScoreName, ...]
    """The first one is the headline."""
    label_set: str | None = None
    """Name of the known label set; None: action units."""
    num_folds: int = 0
    """Official folds (manifest column ``fold``); 0: one fixed split (column ``split``)."""
    test_sizes: Mapping[int, int] = field(default_factory=dict)
    """Published test clips of each fold (0: the fixed split)."""
    units: tuple[str, ...] = ()
    present_from: float = 1.0
    """Coded intensity from which on a unit counts as present."""
    subject_exclusive: bool = False
    practice: tuple[str, ...] = ()
    """What the field does under this protocol that Mien does not."""
    published: tuple[Published, ...] = ()

    def folds_of(self, manifest: Manifest) -> tuple[int | None, ...]:
        """The folds to run, in order; one None for a fixed split.

        Raises:
            ValueError: the manifest's folds are not those of the protocol, or it has no split.
        """
        if not self.num_folds:
            if not {"train", "test"} <= set(manifest.column("split")):
                raise ValueError(
                    f"protocol {self.name} has a fixed split, but the manifest's column `split` "
                    f"lacks train or test; make it with `mien ingest ... {self.data}`"
                )
            return (None,)
        found = sorted({fold for fold in manifest.column("fold") if fold is not None})
        if found != list(range(1, self.num_folds + 1)):
            shown = ", ".join(map(str, found)) or "none"
            raise ValueError(
                f"protocol {self.name} has the folds 1 to {self.num_folds}, the manifest has "
                f"{shown}; make it with `mien ingest ... {self.data}`"
            )
        return tuple(found)

    def deviations(self, test_sizes: Mapping[int | None, int]) -> list[str]:
        """What differs from the published protocol, in sentences.

        Args:
            test_sizes: clips that were scored, by fold (None: the fixed split).
        """
        found = []
        for fold, size in test_sizes.items():
            official = self.test_sizes.get(fold or 0)
            where = "the test split" if fold is None else f"fold {fold}"
            if official is not None and official != size:
                found.append(f"{where} has {size} test clips, published are {official}.")
        return [*found, *self.practice]


_SELECTS = (
    "Mien chooses the epoch on people (or clips) cut out of the training part; papers here "
    "report the best or the last epoch on the test part."
)


def _rows(
    table: Sequence[tuple[str, float, float]], inputs: str, source: str
) -> tuple[Published, ...]:
    return tuple(
        Published(method=name, scores={"uar": uar, "war": war}, inputs=inputs, source=source)
        for name, uar, war in table
    )


_README = "tables of the MAE-DFER and M3DFEL repositories"
_SURVEY = "surveys and READMEs that quote the paper"

DFEW = Protocol(
    name="dfew",
    data="dfew",
    label_set="dfew7",
    num_folds=5,
    scores=("uar", "war"),
    test_sizes={1: 2341, 2: 2341, 3: 2340, 4: 2339, 5: 2336},
    practice=(_SELECTS, "The official folds divide clips, not people or films."),
    published=(
        *_rows(
            [
                ("C3D", 42.74, 53.54),
                ("3D ResNet-18", 46.52, 58.27),
                ("Former-DFER", 53.69, 65.70),
                ("IAL", 55.71, 69.24),
                ("M3DFEL", 56.10, 69.25),
                ("MAE-DFER", 63.41, 74.43),
            ],
            "video",
            _README,
        ),
        *_rows([("RDFER", 56.93, 69.73)], "video", "second-hand quote in a manuscript"),
        *_rows([("DFER-CLIP", 59.61, 71.25), ("S2D", 61.82, 76.03)], "video", _SURVEY),
        *_rows(
            [("T-MEP", 57.16, 68.85), ("HiCMAE-B", 63.76, 75.01), ("MMA-DFER", 67.01, 77.51)],
            "video+audio",
            _SURVEY,
        ),
    ),
)

MAFW = Protocol(
    name="mafw",
    data="mafw",
    label_set="mafw11",
    num_folds=5,
    scores=("uar", "war"),
    test_sizes={1: 1839, 2: 1837, 3: 1833, 4: 1832, 5: 1831},
    practice=(_SELECTS,),
    published=(
        *_rows(
            [
                ("ResNet-18", 25.58, 36.65),
                ("C3D", 31.17, 42.25),
                ("Former-DFER", 31.16, 43.27),
                ("MAE-DFER", 41.62, 54.31),
            ],
            "video",
            _README,
        ),
        *_rows([("S2D", 41.86, 57.37)], "video", _SURVEY),
        *_rows(
            [
                ("T-ESFL", 33.28, 48.18),
                ("T-MEP", 39.37, 52.85),
                ("HiCMAE-B", 42.65, 56.17),
                ("MMA-DFER", 44.11, 58.52),
            ],
            "video+audio",
            _SURVEY,
        ),
    ),
)

FERV39K = Protocol(
    name="ferv39k",
    data="ferv39k",
    label_set="ferv39k7",
    scores=("uar", "war"),
    test_sizes={0: 7847},
    practice=(_SELECTS,),
    published=_rows(
        [
            ("C3D", 22.68, 31.69),
            ("R18+LSTM", 30.92, 42.59),
            ("Former-DFER", 37.20, 46.85),
            ("IAL", 35.82, 48.54),
            ("M3DFEL", 35.94, 47.67),
            ("MAE-DFER", 43.12, 52.07),
            ("S2D", 41.28, 52.56),
        ],
        "video",
        _README,
    ),
)

RAFDB = Protocol(
    name="rafdb",
    data="rafdb",
    label_set="rafdb7",
    scores=("war", "uar"),
    test_sizes={0: 3068},
    practice=(_SELECTS,),
    published=(
        Published(method="DAN", scores={"war": 89.70}, inputs="pictures", source="its repository"),
    ),
)

AFFECTNET8 = Protocol(
    name="affectnet8",
    data="affectnet",
    label_set="affectnet8",
    scores=("war", "uar"),
    test_sizes={0: 4000},
    practice=(
        _SELECTS,
        "The public validation part serves as test part, here as everywhere: the real one is "
        "not public.",
    ),
    published=(
        Published(method="DAN", scores={"war": 62.09}, inputs="pictures", source="its repository"),
    ),
)

EXPR = Protocol(
    name="expr",
    data="affwild2_expr",
    label_set="affwild2_expr8",
    scores=("macro_f1", "uar", "war"),
    practice=(
        _SELECTS,
        "Published figures of the challenge are frames of its secret test part or of its "
        "validation part; ours are those of the manifest's test part.",
    ),
    published=(
        Published(
            method="NetEase Fuxi (challenge test)",
            scores={"macro_f1": 41.21},
            inputs="video+audio",
            source="abstract of arXiv 2303.10849",
        ),
        Published(
            method="VGGFace baseline (challenge test)",
            scores={"macro_f1": 20.5},
            inputs="pictures",
            source="recalled",
        ),
        Published(
            method="HSE-NN frame MLP, un-aligned crops (validation)",
            scores={"macro_f1": 38.4},
            inputs="pictures",
            source="notebook of its repository",
        ),
    ),
)

_ME_GRAPH = "README of ME-GraphAU"


_FRAMES = (
    "Scored are the frames that the method samples of each clip; published are all coded frames. "
    "Recordings cut into short rows (`mien ingest --window`) come closer."
)
_BP4D_UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
_DISFA_UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 9, 12, 25, 26))
_CLP_BY_UNIT = (
    dict(
        zip(
            _BP4D_UNITS,
            (47.7, 50.9, 49.5, 75.8, 78.7, 80.2, 84.1, 67.1, 52.0, 62.7, 45.7, 54.8),
            strict=True,
        )
    ),
    dict(zip(_DISFA_UNITS, (42.4, 38.7, 63.5, 59.7, 38.9, 73.0, 85.0, 58.1), strict=True)),
)


def _unit_rows(column: int) -> tuple[Published, ...]:
    table = [
        ("EAC-Net", 55.9, 48.5),
        ("JAA-Net", 60.0, 56.0),
        ("LP-Net", 61.0, 56.9),
        ("ARL", 61.1, 58.7),
        ("SRERL", 62.9, 55.9),
        ("UGN-B", 63.3, 60.0),
        ("HMP-PS", 63.4, 61.0),
        ("SEV-Net", 63.9, 58.8),
        ("FAUDT", 64.2, 61.5),
        ("ME-GraphAU R50", 64.7, 63.1),
        ("ME-GraphAU Swin-B", 65.5, 62.4),
    ]
    supervised = [
        Published(method=name, scores={"au_f1": scores[column]}, source=_ME_GRAPH)
        for name, *scores in table
    ]
    clp = Published(
        method="CLP (no labels before the probe)",
        scores={"au_f1": (62.4, 57.4)[column]},
        by_unit=_CLP_BY_UNIT[column],
        source="recalled",
    )
    return (*supervised, clp)


BP4D = Protocol(
    name="bp4d",
    data="bp4d",
    num_folds=3,
    scores=("au_f1",),
    units=_BP4D_UNITS,
    subject_exclusive=True,
    practice=(_SELECTS, _FRAMES),
    published=_unit_rows(0),
)

DISFA = Protocol(
    name="disfa",
    data="disfa",
    num_folds=3,
    scores=("au_f1",),
    units=_DISFA_UNITS,
    present_from=2.0,
    subject_exclusive=True,
    practice=(_SELECTS, _FRAMES, "Many papers start from their BP4D model here; Mien does not."),
    published=_unit_rows(1),
)

GFT = Protocol(
    name="gft",
    data="gft",
    scores=("au_f1",),
    units=tuple(f"AU{n}" for n in (1, 2, 4, 6, 10, 12, 14, 15, 23, 24)),
    subject_exclusive=True,
    practice=(_SELECTS, _FRAMES, "No figure of another method under this split could be read."),
)

CFEE = Protocol(
    name="cfee",
    data="cfee",
    label_set="cfee22",
    num_folds=10,
    scores=("war", "uar"),
    subject_exclusive=True,
    practice=(_SELECTS, "No list of the paper's folds is public; Mien draws ten of people."),
)

PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one for one in (DFEW, MAFW, FERV39K, RAFDB, AFFECTNET8, EXPR, BP4D, DISFA, GFT, CFEE)
}
"""By name."""
