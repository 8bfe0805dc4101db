"""The signals: what of the predictions is compared, and when a person should look.

A signal says *look* where it passes two limits at once. The first is chance: what a bootstrap over
films or people gives where nothing has changed, at a level that all signals share, so that few
films don't alarm. The second is a size that matters, so that very many films don't alarm over a
trifle; its reason is told with it.

Shapes: N rows, G units (films, people), K classes, C bins of confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from mien.monitor.bootstrap import moves_by_chance, shares_by_chance
from mien.monitor.picture import PICTURE
from mien.monitor.sample import Floats, Sample, SampleError, thinned

LEVEL = 0.01
"""Probability that anything alarms where nothing has changed."""
MIN_UNITS = 20
"""With fewer films or people a bootstrap says too little of chance."""
_FEATURE_ROWS = 2000
_CONFIDENCE_BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """One thing that was compared."""

    name: str
    what: str
    """The figure, in words."""
    threshold: float
    reason: str
    """Why this threshold."""
    figure: float | None = None
    """None: not measured."""
    by_chance: float | None = None
    """What chance alone passes with the signal's share of the level."""
    p_value: float | None = None
    change: str = ""
    """What changed most, in words."""
    why_not: str = ""
    """Why it was not measured."""

    @property
    def is_loud(self) -> bool:
        """Whether a person should look."""
        if self.figure is None or self.by_chance is None:
            return False
        return self.figure > max(self.threshold, self.by_chance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All signals of two samples."""

    signals: tuple[Signal, ...]
    level: float

    @property
    def loud(self) -> tuple[Signal, ...]:
        """The signals that a person should look at."""
        return tuple(signal for signal in self.signals if signal.is_loud)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    figure: float
    by_chance_R: Floats
    """Figures where nothing has changed."""
    change: str


class _UnmeasuredError(Exception):
    """Why a signal can't be measured in these samples."""


Measure = Callable[[Sample, Sample], _Measured]


def compare(reference: Sample, new: Sample, *, level: float = LEVEL) -> Comparison:
    """Compares new predictions with those that a model was accepted with.

    Raises:
        SampleError: predictions of another model.
    """
    _check(reference, new)
    measured: list[tuple[Signal, _Measured | None]] = []
    for signal, measure in _SIGNALS:
        try:
            measured.append((signal, measure(reference, new)))
        except _UnmeasuredError as error:
            measured.append((replace(signal, why_not=str(error)), None))
    share = level / max(1, sum(found is not None for _, found in measured))
    return Comparison(
        signals=tuple(
            signal if found is None else _judged(signal, found, share) for signal, found in measured
        ),
        level=level,
    )


def _judged(signal: Signal, found: _Measured, level: float) -> Signal:
    exceeded = int((found.by_chance_R >= found.figure).sum())
    return replace(
        signal,
        figure=found.figure,
        by_chance=float(np.quantile(found.by_chance_R, 1 - level)),
        p_value=(1 + exceeded) / (1 + len(found.by_chance_R)),
        change=found.change,
    )


def _check(reference: Sample, new: Sample) -> None:
    if reference.classes != new.classes:
        raise SampleError(
            f"the reference has the classes {', '.join(reference.classes)}, the new predictions "
            f"have {', '.join(new.classes)}: they are of another model"
        )
    hashes = (reference.weights_sha256, new.weights_sha256)
    if all(hashes) and hashes[0] != hashes[1]:
        raise SampleError(
            f"the new predictions are of a model with other weights ({hashes[1][:12]}) than the "
            f"reference ({hashes[0][:12]}); predict with the model that --model names"
        )


def _classes(reference: Sample, new: Sample) -> _Measured:
    counts = [_one_hot_by_unit(_labelled(one)) for one in (reference, new)]
    figure, drawn_R = _shares(counts, jensen_shannon)
    shares = [count_GK.sum(axis=0) / count_GK.sum() for count_GK in counts]
    most = int(np.abs(shares[1] - shares[0]).argmax())
    change = f"{reference.classes[most]} {shares[0][most]:.0%} -> {shares[1][most]:.0%}"
    return _Measured(figure=figure, by_chance_R=drawn_R, change=change)


def _one_hot_by_unit(sample: Sample) -> Floats:
    best_N = sample.probabilities_NK.argmax(axis=1)
    return _by_unit(sample.unit_N, np.eye(len(sample.classes))[best_N])


def confidence_edges(reference: Sample) -> Floats:
    """Inner edges [C - 1] of ten bins that hold as many of the reference's rows each."""
    confidence_N = reference.probabilities_NK.max(axis=1)
    inner = np.linspace(0, 1, _CONFIDENCE_BINS + 1)[1:-1]
    return np.unique(np.quantile(confidence_N, inner))


def _confidence(reference: Sample, new: Sample) -> _Measured:
    samples = [_labelled(one) for one in (reference, new)]
    edges = confidence_edges(samples[0])
    found = [one.probabilities_NK.max(axis=1) for one in samples]
    counts = [
        _by_unit(one.unit_N, np.eye(len(edges) + 1)[np.searchsorted(edges, values_N)])
        for one, values_N in zip(samples, found, strict=True)
    ]
    figure, drawn_R = _shares(counts, jensen_shannon)
    change = f"median {np.median(found[0]):.2f} -> {np.median(found[1]):.2f}"
    return _Measured(figure=figure, by_chance_R=drawn_R, change=change)


def _features(reference: Sample, new: Sample) -> _Measured:
    clouds = [_cloud(one, one.features_ND) for one in (reference, new)]
    figure, drawn_R = moves_by_chance(*clouds)
    change = f"{figure:.0%} of the usual distance of two clips"
    return _Measured(figure=figure, by_chance_R=drawn_R, change=change)


def _picture(reference: Sample, new: Sample) -> _Measured:
    old, now = (_cloud(one, one.picture_NP) for one in (reference, new))
    spread_P = old[0].std(axis=0) + 1e-6
    figure, drawn_R = moves_by_chance((old[0] / spread_P, old[1]), (now[0] / spread_P, now[1]))
    means = [cloud[0].mean(axis=0) for cloud in (old, now)]
    most = int((np.abs(means[1] - means[0]) / spread_P).argmax())
    change = f"{PICTURE[most]} {means[0][most]:.3f} -> {means[1][most]:.3f}"
    return _Measured(figure=figure, by_chance_R=drawn_R, change=change)


def _cloud(
    whole: Sample, values_ND: NDArray[np.float32] | None
) -> tuple[Floats, NDArray[np.int64]]:
    """Values of the labelled rows, not too many, and the unit of each."""
    if values_ND is None:
        raise _UnmeasuredError("a sample came without; `mien predict --features` keeps them")
    chosen = thinned(_labelled(replace(whole, features_ND=values_ND)), _FEATURE_ROWS)
    _enough(chosen.num_units)
    assert chosen.features_ND is not None
    return chosen.features_ND.astype(np.float64), chosen.unit_N


def _agreement(reference: Sample, new: Sample) -> _Measured:
    return _rate(*(_agreeing(_labelled(one)) for one in (reference, new)))


def _agreeing(sample: Sample) -> tuple[NDArray[np.int64], Floats]:
    """Of each window and the one before of the same person: the film, and 1 for the same label."""
    order = np.lexsort((sample.start_s_N, sample.strand_N))
    best_N, strand_N = sample.probabilities_NK.argmax(axis=1)[order], sample.strand_N[order]
    is_pair_N = strand_N[1:] == strand_N[:-1]
    same_N = (best_N[1:] == best_N[:-1]).astype(np.float64)
    return sample.unit_N[order][1:][is_pair_N], same_N[is_pair_N]


def _faces(reference: Sample, new: Sample) -> _Measured:
    return _rate(*(_known(one.unit_N, one.face_share_N) for one in (reference, new)))


def _sound(reference: Sample, new: Sample) -> _Measured:
    return _rate(*(_known(one.unit_N, one.has_audio_N) for one in (reference, new)))


def _known(unit_N: NDArray[np.int64], values_N: Floats) -> tuple[NDArray[np.int64], Floats]:
    known_N = np.isfinite(values_N)
    return unit_N[known_N], values_N[known_N]


def _rate(*samples: tuple[NDArray[np.int64], Floats]) -> _Measured:
    """The difference of two means of values from 0 to 1."""
    counts = [
        _by_unit(unit_N, np.stack([values_N, 1 - values_N], axis=1)) for unit_N, values_N in samples
    ]
    figure, drawn_R = _shares(counts, lambda one, other: np.abs(one - other)[:, 0])
    means = [values_N.mean() for _, values_N in samples]
    change = f"{means[0]:.0%} -> {means[1]:.0%}"
    return _Measured(figure=figure, by_chance_R=drawn_R, change=change)


def _shares(
    counts: Sequence[Floats], distance: Callable[[Floats, Floats], Floats]
) -> tuple[float, Floats]:
    """Of the two samples' counts [G, K]."""
    for counts_GK in counts:
        _enough(len(counts_GK))
    return shares_by_chance(counts[0], counts[1], distance)


def _enough(num_units: int) -> None:
    if num_units < MIN_UNITS:
        raise _UnmeasuredError(
            f"only {num_units} films or people can tell of it; {MIN_UNITS} are needed"
        )


def _labelled(sample: Sample) -> Sample:
    chosen_N = sample.has_label_N
    if not chosen_N.any():
        raise _UnmeasuredError("nobody was found in any film")
    return sample.rows(chosen_N)


def _by_unit(unit_N: NDArray[np.int64], values_NK: Floats) -> Floats:
    """Sums [G, K] over the rows of each unit that has any."""
    _, place_N = np.unique(unit_N, return_inverse=True)
    sums_GK = np.zeros((int(place_N.max(initial=-1)) + 1, values_NK.shape[1]))
    np.add.at(sums_GK, place_N, values_NK)
    return sums_GK


def jensen_shannon(one_RK: Floats, other_RK: Floats) -> Floats:
    """Distances [R], base 2, of shares [R, K]: 0 to 1."""
    # SciPy's own jensenshannon takes the root of rounding's negative numbers.
    middle_RK = (one_RK + other_RK) / 2
    nats_R = (rel_entr(one_RK, middle_RK) + rel_entr(other_RK, middle_RK)).sum(axis=1) / 2
    return np.asarray(np.sqrt(np.clip(nats_R, 0, None) / math.log(2)))


_PSI_DISTANCE = math.sqrt(0.2 / (8 * math.log(2)))
"""For small shifts PSI and the squared distance are both multiples of the sum of (p - q)^2 / p; PSI
is 8 ln 2 times the squared distance."""
_PSI_REASON = "as far as a population stability index of 0.2, which is commonly acted upon"
_SIGNALS: tuple[tuple[Signal, Measure], ...] = (
    (
        Signal(
            name="class_mix",
            what="Jensen-Shannon distance of the shares of the predicted classes",
            threshold=_PSI_DISTANCE,
            reason=_PSI_REASON,
        ),
        _classes,
    ),
    (
        Signal(
            name="confidence",
            what="Jensen-Shannon distance of the largest probability, in tenths of the reference",
            threshold=_PSI_DISTANCE,
            reason=_PSI_REASON,
        ),
        _confidence,
    ),
    (
        Signal(
            name="features",
            what="move of the network's features (root of the energy distance over their spread)",
            threshold=0.2,
            reason="a fifth of the usual distance of two clips of the reference",
        ),
        _features,
    ),
    (
        Signal(
            name="picture",
            what="move of brightness, contrast and sharpness of the faces, measured likewise",
            threshold=0.2,
            reason="a fifth of the usual distance of two clips of the reference",
        ),
        _picture,
    ),
    (
        Signal(
            name="agreement",
            what="difference of the share of neighbouring windows with the same label",
            threshold=0.1,
            reason="one more pair of windows in ten that contradict each other, or agree",
        ),
        _agreement,
    ),
    (
        Signal(
            name="faces",
            what="difference of the share of frames in which the face was found",
            threshold=0.1,
            reason="one frame in ten: the labels of the rest rest on less",
        ),
        _faces,
    ),
    (
        Signal(
            name="sound",
            what="difference of the share of clips or windows with sound",
            threshold=0.1,
            reason="one in ten is predicted from less than the model was accepted with",
        ),
        _sound,
    ),
)
