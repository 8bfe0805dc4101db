"""A search space: settings by name, each with its range, some only under another's values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from mien_models.contract import Range

Kind = Literal["uniform", "log_uniform", "int", "choice"]
Value = bool | int | float | str | None
"""What Optuna keeps of a choice."""


class SpaceError(ValueError):
    """A space that can't be searched; names the setting."""


class Suggesting(Protocol):
    """The part of ``optuna.trial.Trial`` that draws values."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One searched setting.

    Raises:
        SpaceError: an empty or endless range.
    """

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()
    only_if: tuple[str, tuple[Value, ...]] | None = None
    """Another dimension, and its values under which this one is drawn."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SpaceError(f"{self.name}: there is no range {self.kind!r}")
        if self.kind == "choice":
            self._check_choices()
        else:
            self._check_interval()

    def _check_choices(self) -> None:
        if not self.choices:
            raise SpaceError(f"{self.name}: choice() needs at least one value, as in choice(1,3,5)")
        kept = [(type(choice), choice) for choice in self.choices]
        if len(set(kept)) < len(kept):
            raise SpaceError(f"{self.name}: choice{self.choices} names a value twice")

    def _check_interval(self) -> None:
        low, high = self.low, self.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            raise SpaceError(f"{self.name}: {self.kind} needs two finite numbers, low and high")
        if low >= high:
            raise SpaceError(f"{self.name}: the range from {low:g} to {high:g} holds nothing")
        if self.kind == "log_uniform" and low <= 0:
            raise SpaceError(f"{self.name}: loguniform starts above 0, not at {low:g}")
        if self.kind == "int" and (low != int(low) or high != int(high)):
            raise SpaceError(f"{self.name}: int takes whole numbers, not {low:g} and {high:g}")

    @classmethod
    def of(cls, name: str, span: Range) -> Dimension:
        """The dimension that a method's range means."""
        return cls(
            name=name,
            kind=span.kind,
            low=span.low,
            high=span.high,
            choices=span.choices,
            only_if=span.only_if,
        )

    @property
    def is_numeric(self) -> bool:
        """Whether its values have an order that a sampler can use."""
        return self.kind != "choice"

    @property
    def ends(self) -> tuple[Value, ...]:
        """Every choice; of an interval, both ends."""
        if self.kind == "choice":
            return self.choices
        low, high = cast(float, self.low), cast(float, self.high)
        return (int(low), int(high)) if self.kind == "int" else (low, high)

    @property
    def all_values(self) -> tuple[Value, ...] | None:
        """Every value; None where there are endlessly many."""
        if self.kind == "int":
            return tuple(range(int(cast(float, self.low)), int(cast(float, self.high)) + 1))
        return self.choices if self.kind == "choice" else None

    def applies(self, values: Mapping[str, Value]) -> bool:
        """Whether it is drawn, given the values of the dimensions before it."""
        if self.only_if is None:
            return True
        other, wanted = self.only_if
        return other in values and any(_same(values[other], value) for value in wanted)

    def suggest(self, trial: Suggesting) -> Value:
        """A value, drawn by a trial."""
        if self.kind == "choice":
            return cast(Value, trial.suggest_categorical(self.name, self.choices))
        low, high = cast(float, self.low), cast(float, self.high)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(low), int(high))
        return trial.suggest_float(self.name, low, high, log=self.kind == "log_uniform")

    def holds(self, value: Value) -> bool:
        """Whether a value could have been drawn."""
        if self.kind == "choice":
            return any(_same(value, choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = cast(float, self.low), cast(float, self.high)
        return low <= value <= high and (self.kind != "int" or value == int(value))

    def __str__(self) -> str:
        words = {"uniform": "uniform", "log_uniform": "loguniform", "int": "int"}
        if self.kind == "choice":
            text = f"choice({','.join(map(shown, self.choices))})"
        else:
            text = f"{words[self.kind]}({self.low:g},{self.high:g})"
        if self.only_if is None:
            return text
        other, values = self.only_if
        return f"{text} if {other}={'|'.join(map(shown, values))}"


@dataclass(frozen=True, slots=True)
class Space:
    """The dimensions of a search; a conditional one stands behind the one it depends on.

    Raises:
        SpaceError: no dimension, one twice, a condition on something that is not searched or can
            never hold, or conditions in a circle.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise SpaceError("nothing to search: name settings with --space NAME=choice(...)")
        names = [dimension.name for dimension in self.dimensions]
        for name in names:
            if names.count(name) > 1:
                raise SpaceError(f"{name} is in the space twice")
        object.__setattr__(self, "dimensions", _conditions_first(self.dimensions))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(dimension.name for dimension in self.dimensions)

    def suggest(self, trial: Suggesting) -> dict[str, Value]:
        """Values of the dimensions that apply, drawn by a trial."""
        values: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.applies(values):
                values[dimension.name] = dimension.suggest(trial)
        return values

    def misfit(self, values: Mapping[str, Value]) -> str | None:
        """What is wrong with values that were not drawn here; None: nothing."""
        known: dict[str, Value] = {}
        for dimension in self.dimensions:
            if not dimension.applies(known):
                continue
            if dimension.name not in values:
                return f"{dimension.name} is missing"
            value = values[dimension.name]
            if not dimension.holds(value):
                return f"{dimension.name}={shown(value)} is not in {dimension}"
            known[dimension.name] = value
        return None

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination once; conditional settings only where they matter.

        Raises:
            SpaceError: a dimension has endlessly many values.
        """
        for dimension in self.dimensions:
            if dimension.all_values is None:
                raise SpaceError(
                    f"{dimension.name}: a grid needs a list of values; write choice(...) or int(..)"
                    f" in the place of {dimension}"
                )
        rows: list[dict[str, Value]] = [{}]
        for dimension in self.dimensions:
            rows = list(itertools.chain.from_iterable(_extended(row, dimension) for row in rows))
        return iter(rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for a file."""
        return [
            {
                "name": item.name,
                "kind": item.kind,
                "low": item.low,
                "high": item.high,
                "choices": list(item.choices),
                "only_if": None if item.only_if is None else [item.only_if[0], *item.only_if[1]],
            }
            for item in self.dimensions
        ]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> Space:
        """The inverse of :meth:`to_json`."""
        made = []
        for row in rows:
            condition = row["only_if"]
            only_if = None if condition is None else (condition[0], tuple(condition[1:]))
            made.append(Dimension(**{**row, "choices": tuple(row["choices"]), "only_if": only_if}))
        return cls(tuple(made))


def shown(value: Value) -> str:
    """A value as people type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _same(one: Value, other: Value) -> bool:
    """Equal, and not 1 for True."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _extended(row: dict[str, Value], dimension: Dimension) -> list[dict[str, Value]]:
    if not dimension.applies(row):
        return [row]
    return [{**row, dimension.name: value} for value in dimension.all_values or ()]


def _conditions_first(dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    by_name = {dimension.name: dimension for dimension in dimensions}
    for dimension in dimensions:
        _check_condition(dimension, by_name)
    placed: dict[str, Dimension] = {}
    waiting = list(dimensions)
    while waiting:
        ready = [d for d in waiting if d.only_if is None or d.only_if[0] in placed]
        if not ready:
            names = ", ".join(d.name for d in waiting)
            raise SpaceError(f"the conditions of {names} wait for each other")
        for dimension in ready:
            placed[dimension.name] = dimension
        waiting = [d for d in waiting if d.name not in placed]
    return tuple(placed.values())


def _check_condition(dimension: Dimension, by_name: Mapping[str, Dimension]) -> None:
    if dimension.only_if is None:
        return
    other, values = dimension.only_if
    if other not in by_name:
        raise SpaceError(f"{dimension.name} depends on {other}, which is not searched")
    for value in values:
        if not by_name[other].holds(value):
            raise SpaceError(
                f"{dimension.name} depends on {other}={shown(value)}, which is not in "
                f"{by_name[other]}"
            )
