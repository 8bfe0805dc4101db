"""What probes found, as part of a scorecard: sentences, tables, figures for a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mien.evaluate.probes import IdentityProbe, RegressionProbe
from mien.evaluate.report import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScores:
    """What frozen features tell of the person, and of where the head points; only what was asked
    for is there."""

    identity: IdentityProbe | None = None
    pose: tuple[RegressionProbe, ...] = ()
    not_probed: tuple[str, ...] = ()
    """What was asked for and these clips don't allow, with the reason."""

    def sentences(self) -> list[str]:
        """The findings in words."""
        told = []
        if (who := self.identity) is not None:
            told.append(
                f"From the frozen features a linear probe names {who.linear.value:.1%} of "
                f"{who.num_clips} clips of {who.num_people} people rightly (a guess: "
                f"{who.chance:.1%}); it has learnt other clips of the same people. Less is better."
            )
            if who.left_out:
                told.append(f"{who.left_out} clips of people with too few clips are left out.")
        if self.pose:
            best = max(self.pose, key=lambda one: one.r2)
            told.append(
                f"From the frozen features a ridge regression reads {best.name} best: R2 "
                f"{best.r2:.3f} ({best.interval}) on {best.num_people} people that it has not "
                "seen. 0 is no better than the mean."
            )
        return told + [f"Not probed: {reason}." for reason in self.not_probed]

    def tables(self, beside: Sequence[Sequence[str]] = ()) -> list[Table]:
        """A table of each probe.

        Args:
            beside: rows of name and value to compare with: scores of the same clips.
        """
        made = []
        if self.identity is not None:
            made.append(_identity_table(self.identity, beside))
        if self.pose:
            rows = [
                [p.name, f"{p.r2:.3f}", str(p.interval), f"{p.mean_error:.3g}", str(p.num_clips)]
                for p in self.pose
            ]
            head = ["probe", "R2", "95 % over people", "mean error", "clips"]
            made.append(Table(title="Pose", head=head, rows=[*rows, *beside]))
        return made

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Flat names for a tracker: ``test/identity_accuracy``, ``test/pose_r2/yaw_deg``."""
        metrics = {f"{prefix}/pose_r2/{one.name}": one.r2 for one in self.pose}
        if self.identity is not None:
            metrics |= {
                f"{prefix}/identity_accuracy": self.identity.linear.value,
                f"{prefix}/identity_nearest": self.identity.nearest.value,
                f"{prefix}/identity_chance": self.identity.chance,
            }
        return metrics


def _identity_table(probe: IdentityProbe, beside: Sequence[Sequence[str]]) -> Table:
    rows = [
        ["identity, linear", f"{probe.linear.value:.3f}", str(probe.linear.interval)],
        ["identity, nearest clip", f"{probe.nearest.value:.3f}", str(probe.nearest.interval)],
        ["identity, a guess", f"{probe.chance:.3f}"],
    ]
    note = (
        "Clips of one person often share light and background, which counts as identity here. "
        "Compare with an untrained model of the same kind."
    )
    head = ["probe", "value", "95 % over people"]
    return Table(title="Identity", head=head, rows=[*rows, *beside], note=note)
