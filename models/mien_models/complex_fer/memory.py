"""The replay memory: clip ids with where they come from, never pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mien_models.complex_fer.config import MemoryConfig
from mien_models.complex_fer.selection import SELECTORS, Candidates, capped
from mien_models.contract import JsonState


@dataclass(frozen=True, kw_only=True, slots=True)
class Exemplar:
    """A training clip that is shown again, and why it was kept."""

    clip_id: str
    class_name: str
    subject: int
    """The stream's number of the person, -1 where unknown."""
    selector: str
    score: float
    """What the selector gave it."""
    rank: int
    """Among its class's clips, best first."""
    stage: str
    """The stage that learnt the class."""


class ReplayMemory:
    """Exemplars by class, in the order of their ranks.

    Args:
        config: budget and selector.
    """

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self.exemplars: tuple[Exemplar, ...] = ()

    def __len__(self) -> int:
        return len(self.exemplars)

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Of all exemplars."""
        return tuple(exemplar.clip_id for exemplar in self.exemplars)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that have an exemplar, in the order in which they came."""
        return tuple(dict.fromkeys(exemplar.class_name for exemplar in self.exemplars))

    def of_class(self, name: str) -> tuple[Exemplar, ...]:
        """A class's exemplars, best first."""
        return tuple(one for one in self.exemplars if one.class_name == name)

    def remember(self, name: str, clips: Candidates, stage: str) -> None:
        """Adds a class, ranked by the selector; all of it until :meth:`cut` is called."""
        selector = self.config.selector
        order, scores_N = SELECTORS[selector](clips)
        subjects = clips.subject_N.tolist()
        ranked = capped(order.tolist(), subjects, self.config.subject_cap)
        self.exemplars += tuple(
            Exemplar(
                clip_id=clips.clip_ids[index],
                class_name=name,
                subject=subjects[index],
                selector=selector,
                score=round(float(scores_N[index]), 6),
                rank=rank,
                stage=stage,
            )
            for rank, index in enumerate(ranked)
        )

    def cut(self, num_classes: int) -> None:
        """Keeps of each class the first clips that the budget for so many classes allows."""
        keep = self.config.clips_per_class(num_classes)
        self.exemplars = tuple(
            one for name in self.class_names for one in self.of_class(name)[:keep]
        )

    def to_json(self) -> JsonState:
        """The memory as JSON values; an entry holds all that is known of its clip.

        The list has no list beside it, so that entries can be taken out when a person is forgotten.
        """
        return {"exemplars": [asdict(one) for one in self.exemplars]}

    def load_json(self, state: JsonState) -> None:
        """Restores :meth:`to_json`."""
        entries: Iterable[JsonState] = state["exemplars"]
        self.exemplars = tuple(Exemplar(**entry) for entry in entries)
