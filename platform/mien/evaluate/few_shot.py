"""One new class from a few clips: how well it is found, and what the known classes lose.

Protocol: K clips of the new class are drawn, at least 100 times; whatever is learnt from them is
asked about clips of other people, of the new class *and* of the known ones. The published figure,
recall of the new class alone, stands beside it: a predictor that always says "new" scores 100 % on
it.

All learners here work on features of a frozen network.

Shapes: R draws, K shots, C known classes, N support candidates, Q queries, M remembered clips,
D features. Column C of logits is the new class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mien.evaluate.markdown import markdown_table
from mien.evaluate.metrics import softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SHOTS = (1, 3, 5, 10)
MIN_DRAWS = 100


class FewShotError(ValueError):
    """A few-shot task that can't be posed."""


@dataclass(frozen=True, kw_only=True)
class FewShotTask:
    """A new class beside known ones, as features.

    Raises:
        FewShotError: shapes that don't fit, or no query of the new or of a known class.
    """

    support_ND: FloatArray
    """Clips of the new class that may be drawn."""
    query_QD: FloatArray
    """Clips of other people."""
    true_Q: IntArray
    """The query's class: 0 to C - 1, or C for the new one."""
    weight_CD: FloatArray
    """The known classes' linear classifier."""
    bias_C: FloatArray
    replay_MD: FloatArray
    """Remembered clips of the known classes."""
    replay_class_M: IntArray

    def __post_init__(self) -> None:
        known, dim = self.weight_CD.shape
        sides = {len(part[0]) for part in (self.support_ND, self.query_QD, self.replay_MD)}
        if sides != {dim}:
            raise FewShotError(f"features have {sorted(sides)} values, the classifier {dim}")
        is_new_Q = self.true_Q == known
        if not is_new_Q.any() or is_new_Q.all() or self.true_Q.max() > known:
            raise FewShotError(
                f"queries must be of the new class ({known}) and of known ones (0 to {known - 1})"
            )
        missing = sorted(set(range(known)) - set(self.replay_class_M.tolist()))
        if missing:
            raise FewShotError(f"known classes {missing} have no remembered clip")

    @property
    def num_known(self) -> int:
        """C."""
        return len(self.weight_CD)

    def base_logits(self, features_QD: FloatArray) -> FloatArray:
        """What the classifier says before anything new is learnt, [Q, C]."""
        found: FloatArray = features_QD @ self.weight_CD.T + self.bias_C
        return found


class Learner(Protocol):
    """Learns a new class from support clips."""

    def __call__(self, task: FewShotTask, support_RKD: FloatArray) -> FloatArray:
        """Logits [R, Q, C + 1] of the queries after each draw."""


def always_new(task: FewShotTask, support_RKD: FloatArray) -> FloatArray:
    """Says "new" to everything; knows nothing."""
    return _constant(task, support_RKD, 1.0)


def never_new(task: FewShotTask, support_RKD: FloatArray) -> FloatArray:
    """Goes on as if nothing had been shown."""
    return _constant(task, support_RKD, -1.0)


def _constant(task: FewShotTask, support_RKD: FloatArray, sign: float) -> FloatArray:
    base_QC = task.base_logits(task.query_QD)
    # As far from the known classes for every query, so that nothing is told apart.
    new_Q1 = base_QC.max(axis=1, keepdims=True) + sign
    one = np.concatenate([base_QC, new_Q1], axis=1)
    return np.repeat(one[None], len(support_RKD), axis=0)


def prototypes(task: FewShotTask, support_RKD: FloatArray) -> FloatArray:
    """Nearest class mean of normalised features (cosine similarity); nothing is trained."""
    known_CD = np.stack(
        [
            _unit(_unit(task.replay_MD)[task.replay_class_M == index].mean(axis=0))
            for index in range(task.num_known)
        ]
    )
    new_RD = _unit(_unit(support_RKD).mean(axis=1))
    query_QD = _unit(task.query_QD)
    known_QC = query_QD @ known_CD.T
    new_RQ = new_RD @ query_QD.T
    repeated = np.broadcast_to(known_QC, (len(new_RD), *known_QC.shape))
    return np.concatenate([repeated, new_RQ[..., None]], axis=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientHead:
    """Trains the widened linear classifier by gradient descent, all draws side by side.

    Without replay it sees clips of the new class alone, as published, with the published
    distillation (zero-padded, temperature 3, weight 0.1). With replay every class counts the same.
    """

    with_replay: bool
    steps: int = 300
    learning_rate: float = 0.5
    distillation: float = 0.1
    temperature: float = 3.0

    def __call__(self, task: FewShotTask, support_RKD: FloatArray) -> FloatArray:
        """Logits [R, Q, C + 1] of the queries after each draw."""
        scale = np.sqrt((task.replay_MD**2).sum(axis=1).mean())
        weight_RCD, bias_RC = self._start(task, len(support_RKD), scale)
        clips, targets, share = self._training_set(task, support_RKD)
        clips = clips / scale
        teacher = self._teacher(task, clips * scale)
        for _ in range(self.steps):
            logits = clips @ weight_RCD.swapaxes(1, 2) + bias_RC[:, None]
            pull = softmax_last(logits) - targets
            kept = softmax_last(logits / self.temperature) - teacher
            mixed = (1 - self.distillation) * pull + self.distillation / self.temperature * kept
            mixed = mixed * share[None, :, None]
            weight_RCD -= self.learning_rate * (mixed.swapaxes(1, 2) @ clips)
            bias_RC -= self.learning_rate * mixed.sum(axis=1)
        query = task.query_QD / scale
        found: FloatArray = query @ weight_RCD.swapaxes(1, 2) + bias_RC[:, None]
        return found

    def _start(self, task: FewShotTask, draws: int, scale: float) -> tuple[FloatArray, FloatArray]:
        """The known rows, for features over ``scale``, and a row of zeros."""
        zeros_1D = np.zeros((1, task.weight_CD.shape[1]))
        weight = np.concatenate([task.weight_CD * scale, zeros_1D])
        bias = np.concatenate([task.bias_C, [0.0]])
        return np.repeat(weight[None], draws, axis=0), np.repeat(bias[None], draws, axis=0)

    def _training_set(
        self, task: FewShotTask, support_RKD: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Clips [R, K + M, D], one-hot targets [1, K + M, C + 1] and what each clip counts."""
        shots, new = support_RKD.shape[1], task.num_known
        if not self.with_replay:
            targets = np.zeros((1, shots, new + 1))
            targets[..., new] = 1.0
            return support_RKD, targets, np.full(shots, 1.0 / shots)
        replay = np.broadcast_to(task.replay_MD, (len(support_RKD), *task.replay_MD.shape))
        classes = np.concatenate([np.full(shots, new), task.replay_class_M])
        counts = np.bincount(classes, minlength=new + 1)
        share = 1.0 / (counts[classes] * (new + 1))
        clips = np.concatenate([support_RKD, replay], axis=1)
        return clips, np.eye(new + 1)[classes][None], share

    def _teacher(self, task: FewShotTask, clips: FloatArray) -> FloatArray:
        known = clips @ task.weight_CD.T + task.bias_C
        padded = np.concatenate([known, np.zeros((*known.shape[:-1], 1))], axis=-1)
        return softmax_last(padded / self.temperature)


LEARNERS: Mapping[str, Learner] = {
    "always_new": always_new,
    "never_new": never_new,
    "published": GradientHead(with_replay=False),
    "replay": GradientHead(with_replay=True),
    "prototypes": prototypes,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over draws with its 95 % interval (normal approximation).

    The draws share their queries, so this is about which clips were drawn, not about other people.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values_R: FloatArray) -> Estimate:
        """The mean of independent draws."""
        mean = float(values_R.mean())
        if len(values_R) < 2:
            return cls(mean=mean, low=mean, high=mean)
        reach = 1.96 * float(values_R.std(ddof=1)) / len(values_R) ** 0.5
        return cls(mean=mean, low=mean - reach, high=mean + reach)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotScores:
    """What a learner does with K clips of a new class."""

    learner: str
    shots: int
    draws: int
    new_recall: Estimate
    """The published figure."""
    base_before: float
    """Accuracy on known classes before."""
    base_after: Estimate
    harmonic_mean: Estimate
    """Of new recall and accuracy on known classes, draw by draw."""
    auroc: Estimate
    """New against known: the new class's logit less the largest known one."""


def score_learner(
    name: str,
    task: FewShotTask,
    *,
    shots: int,
    draws: int = MIN_DRAWS,
    seed: int = 0,
    learners: Mapping[str, Learner] = LEARNERS,
) -> FewShotScores:
    """Scores of a learner over seeded draws; the same draws for every learner.

    Raises:
        FewShotError: fewer than :data:`MIN_DRAWS` draws, or fewer clips than shots.
    """
    if draws < MIN_DRAWS:
        raise FewShotError(f"{draws} draws are too few for an interval; use {MIN_DRAWS} or more")
    chosen_RK = draw_supports(len(task.support_ND), shots=shots, draws=draws, seed=seed)
    logits_RQC = learners[name](task, task.support_ND[chosen_RK])
    is_new_Q = task.true_Q == task.num_known
    hit_RQ = logits_RQC.argmax(axis=2) == task.true_Q
    new_R, base_R = hit_RQ[:, is_new_Q].mean(axis=1), hit_RQ[:, ~is_new_Q].mean(axis=1)
    before_Q = task.base_logits(task.query_QD).argmax(axis=1) == task.true_Q
    # Rounded, so that equal margins are ties.
    margin_RQ = (logits_RQC[..., -1] - logits_RQC[..., :-1].max(axis=2)).round(9)
    return FewShotScores(
        learner=name,
        shots=shots,
        draws=draws,
        new_recall=Estimate.of(new_R),
        base_before=float(before_Q[~is_new_Q].mean()),
        base_after=Estimate.of(base_R),
        harmonic_mean=Estimate.of(harmonic_mean(new_R, base_R)),
        auroc=Estimate.of(np.asarray([roc_auc_score(is_new_Q, row) for row in margin_RQ])),
    )


def draw_supports(candidates: int, *, shots: int, draws: int, seed: int) -> IntArray:
    """Clip numbers [R, K], each draw without replacement.

    Raises:
        FewShotError: fewer candidates than shots.
    """
    if shots > candidates:
        raise FewShotError(f"{shots} shots need as many clips; the new class has {candidates}")
    generators = [np.random.default_rng([seed, shots, draw]) for draw in range(draws)]
    return np.stack([rng.choice(candidates, shots, replace=False) for rng in generators])


def harmonic_mean(first: FloatArray, second: FloatArray) -> FloatArray:
    """2ab / (a + b), 0 where both are 0."""
    total = first + second
    return np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)


def few_shot_table(scores: list[FewShotScores]) -> str:
    """Scores as a Markdown table, the published figure in its own column."""
    head = ["K", "learner", "new recall (published)", "known before", "known after"]
    rows = [
        [
            str(one.shots),
            one.learner,
            str(one.new_recall),
            f"{one.base_before:.3f}",
            str(one.base_after),
            str(one.harmonic_mean),
            str(one.auroc),
        ]
        for one in scores
    ]
    return markdown_table([*head, "harmonic mean", "AUROC"], rows)


def softmax_last(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis of any array."""
    flat = softmax(logits.reshape(-1, logits.shape[-1]))
    found: FloatArray = flat.reshape(logits.shape)
    return found


def _unit(values: FloatArray) -> FloatArray:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    unit: FloatArray = values / np.maximum(length, 1e-12)
    return unit
