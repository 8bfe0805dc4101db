"""What is known of every clip's label: agreement over epochs, verdicts, relabels.

Keyed by clip id, in plain Python numbers, so that it goes into checkpoints as JSON and is the same
whatever worker a clip landed on. Numbers are rounded to six places: sums in another order (another
number of workers) don't change them in the long run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from mien_models.rdfer.agreement import Verdict, judge
from mien_models.rdfer.config import AgreementConfig
from mien_models.rdfer.mixture import label_loss, probability_of_high

_DECIMALS = 6


class Look(NamedTuple):
    """The looks at one clip after an epoch."""

    clip_id: str
    given: int
    agreement: float
    probabilities: list[float]
    """Mean over the looks."""


class Entry(NamedTuple):
    """One line of a clip's history."""

    epoch: int
    suggested: int
    agreement: float
    margin: float
    verdict: Verdict
    label: int
    """The one that is trained from here on."""


@dataclass(kw_only=True)
class ClipRecord:
    """A clip's label and what the network thinks of it."""

    given: int
    """The label in the manifest."""
    agreement: float
    """Moving average over epochs."""
    probabilities: list[float]
    """Moving average of the looks' mean."""
    looks: int = 1
    """How many the averages are of."""
    relabelled_to: int | None = None
    """The class that is trained instead of the given one."""
    verdict: Verdict = "clean"
    history: list[Entry] = field(default_factory=list)

    @property
    def suggested(self) -> int:
        """The most probable class."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def margin(self) -> float:
        """How much more probable the suggested class is than the given one."""
        return round(max(self.probabilities) - self.probabilities[self.given], _DECIMALS)

    @property
    def label(self) -> int:
        """The class that is trained."""
        return self.given if self.relabelled_to is None else self.relabelled_to


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a batch is trained on."""

    target_BK: Tensor
    """float32, each row sums to 1."""
    weight_B: Tensor
    is_hard_B: Tensor
    """float32, 1 where the intensity-aware loss counts."""


class AgreementLedger:
    """The records of all clips.

    Args:
        config: thresholds, measures against noise, caps.
    """

    def __init__(self, config: AgreementConfig) -> None:
        self._config = config
        self.records: dict[str, ClipRecord] = {}

    def update(self, epoch: int, looks: Iterable[Look], *, relabels: bool) -> None:
        """Takes in the looks after an epoch and decides anew.

        Every worker calls it with the looks of all workers. A relabel lasts as long as its reason:
        clips that are no longer noisy get their given label back.

        Args:
            epoch: whose end this is, from 0.
            looks: at each clip once; clips that are missing keep what was known.
            relabels: whether labels may change yet.
        """
        seen = sorted(looks)
        for look in seen:
            self._take_in(look)
        before = {clip_id: record.label for clip_id, record in self.records.items()}
        high = self._probabilities_of_high()
        for clip_id, record in self.records.items():
            record.verdict = judge(
                record.agreement,
                record.suggested,
                record.given,
                record.margin,
                self._config,
                probability_of_high=high.get(clip_id, 1.0),
            )
            if record.verdict != "noisy":
                record.relabelled_to = None
            elif record.relabelled_to is not None:
                record.relabelled_to = record.suggested
        if relabels and self._config.mitigate == "relabel":
            self._relabel()
        self._remember(epoch, {look.clip_id for look in seen}, before)

    def _probabilities_of_high(self) -> dict[str, float]:
        """Of each clip, that its loss is one of the high ones; empty where nobody asks."""
        if self._config.mixture is None:
            return {}
        losses = [label_loss(item.probabilities[item.given]) for item in self.records.values()]
        return dict(zip(self.records, probability_of_high(losses), strict=True))

    def _take_in(self, look: Look) -> None:
        record = self.records.get(look.clip_id)
        if record is None or record.given != look.given:
            # A label that was corrected in the manifest starts anew.
            self.records[look.clip_id] = ClipRecord(
                given=look.given,
                agreement=round(look.agreement, _DECIMALS),
                probabilities=[round(value, _DECIMALS) for value in look.probabilities],
            )
            return
        record.looks += 1
        share = newest_share(self._config.momentum, record.looks)
        record.agreement = _averaged(record.agreement, look.agreement, share)
        pairs = zip(record.probabilities, look.probabilities, strict=True)
        record.probabilities = [_averaged(old, new, share) for old, new in pairs]

    def _relabel(self) -> None:
        """Relabels the noisy clips with the largest margins, as far as the caps allow."""
        by_class: dict[int, list[str]] = defaultdict(list)
        for clip_id, record in self.records.items():
            by_class[record.given].append(clip_id)
        for clip_ids in by_class.values():
            records = {clip_id: self.records[clip_id] for clip_id in clip_ids}
            waiting = [
                clip_id
                for clip_id, record in records.items()
                if record.verdict == "noisy" and record.relabelled_to is None
            ]
            waiting.sort(key=lambda clip_id: (-self.records[clip_id].margin, clip_id))
            done = sum(record.relabelled_to is not None for record in records.values())
            allowed = min(
                max(1, int(self._config.cap_per_epoch * len(records))),
                int(self._config.cap * len(records)) - done,
            )
            for clip_id in waiting[: max(0, allowed)]:
                records[clip_id].relabelled_to = records[clip_id].suggested

    def _remember(self, epoch: int, seen: set[str], before: dict[str, int]) -> None:
        for clip_id, record in self.records.items():
            if clip_id in seen or before[clip_id] != record.label:
                entry = Entry(
                    epoch,
                    record.suggested,
                    record.agreement,
                    record.margin,
                    record.verdict,
                    record.label,
                )
                record.history.append(entry)

    def shares(self) -> dict[str, float]:
        """Shares of the clips with each verdict, and of those trained on another label."""
        records = self.records.values()
        number = max(1, len(records))
        shares = {
            f"share_{verdict}": sum(record.verdict == verdict for record in records) / number
            for verdict in get_args(Verdict)
        }
        relabelled = sum(record.relabelled_to is not None for record in records)
        return shares | {"share_relabelled": relabelled / number}

    def targets(
        self, clip_ids: Sequence[str], label_B: Tensor, num_classes: int, *, acts: bool
    ) -> Targets:
        """Targets and weights of a batch, on the labels' device.

        Args:
            clip_ids: of the batch.
            label_B: int64, the given labels.
            num_classes: K.
            acts: False: every label is believed, whatever is known.
        """
        target_BK = torch.zeros(len(clip_ids), num_classes)
        weight_B, is_hard_B = torch.ones(len(clip_ids)), torch.zeros(len(clip_ids))
        for row, (clip_id, given) in enumerate(zip(clip_ids, label_B.tolist(), strict=True)):
            record = self.records.get(clip_id) if acts else None
            if record is None or record.given != given:
                target_BK[row, given] = 1.0
                continue
            target_BK[row, record.label] = 1.0
            if record.verdict == "hard":
                weight_B[row] = 1.0 + self._config.reinforce * (1.0 - record.agreement)
                is_hard_B[row] = 1.0
            elif record.verdict == "noisy":
                self._mitigate(record, target_BK[row], weight_B[row])
        device = label_B.device
        return Targets(
            target_BK=target_BK.to(device),
            weight_B=weight_B.to(device),
            is_hard_B=is_hard_B.to(device),
        )

    def _mitigate(self, record: ClipRecord, target_K: Tensor, weight: Tensor) -> None:
        """Changes the target or the weight of a noisy clip in place."""
        if self._config.mitigate == "reweight":
            weight.fill_(self._config.noisy_weight)
        elif self._config.mitigate == "soften":
            predicted_K = torch.tensor(record.probabilities)
            target_K.lerp_(predicted_K / predicted_K.sum(), self._config.soften_share)

    def to_json(self) -> dict[str, Any]:
        """All records by clip id, as JSON values."""
        return {clip_id: _as_json(record) for clip_id, record in self.records.items()}

    def load_json(self, state: dict[str, Any]) -> None:
        """Restores :meth:`to_json`.

        Raises:
            ValueError: a record lacks something.
        """
        names = {item.name for item in fields(ClipRecord)}
        # Older ledgers did not count looks, but kept them.
        state = {
            clip_id: {"looks": max(1, len(values.get("history", ()))), **values}
            for clip_id, values in state.items()
        }
        for clip_id, values in state.items():
            if set(values) != names:
                raise ValueError(
                    f"the agreement record of clip {clip_id!r} holds {sorted(values)}, "
                    f"expected {sorted(names)}"
                )
        self.records = {
            clip_id: ClipRecord(
                **{**values, "history": [Entry(*entry) for entry in values["history"]]}
            )
            for clip_id, values in state.items()
        }


def newest_share(momentum: float, looks: int) -> float:
    """Share of the newest of so many looks in a moving average without a bias to the first.

    Look i of n counts ``momentum ** (n - i)``, over their sum (as Adam corrects its averages:
    Kingma & Ba 2015, section 3). With A <- rho A + (1 - rho) A_new alone the first look, that of a
    network that knows nothing yet, would count rho ** (n - 1): after eight looks at 0.9 a half.
    """
    return (1.0 - momentum) / (1.0 - momentum**looks)


def _averaged(old: float, new: float, share: float) -> float:
    return round(old + share * (new - old), _DECIMALS)


def _as_json(record: ClipRecord) -> dict[str, Any]:
    values = asdict(record)
    return values | {"history": [list(entry) for entry in record.history]}
