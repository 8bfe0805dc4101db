"""The space of a search from a method's own ranges and ``--space`` options, checked on a recipe.

``--space`` takes the name of a setting that the method has a range for, a pattern over such
names (``threshold.*``), or a range of one's own: ``optim.lr=loguniform(1e-5,1e-3)``,
``prompts.per_stage=choice(1,3,5,8)``, and with a condition
``threshold.rho=uniform(0.9,1) if threshold.evidence=running``.
Nothing of it is evaluated as code; values are read by the setting's own type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from mien.search.space import Dimension, Kind, Space, SpaceError, Value, shown
from mien_jobs import typed_values
from mien_jobs.overrides import OverrideError, apply_overrides, flatten, kind_of
from mien_jobs.recipe import Recipe
from mien_jobs.typed_values import TypedValueError, nearest
from mien_models.contract import Range

_KINDS: dict[str, Kind] = {
    "uniform": "uniform",
    "loguniform": "log_uniform",
    "int": "int",
    "choice": "choice",
}
_RANGE = re.compile(r"(?P<kind>\w+)\((?P<inside>.*)\)(?:\s+if\s+(?P<condition>\S.*))?", re.DOTALL)
_IN_CONFIG = "config."


def build_space(
    recipe: Recipe, own: Mapping[str, Range], wanted: Sequence[str]
) -> tuple[Space, list[str]]:
    """The space that was asked for.

    Args:
        recipe: whose settings are searched.
        own: the method's ranges, by name inside its configuration.
        wanted: what ``--space`` was given.

    Returns:
        The space, and a line for each value of the method's own ranges that doesn't go with this
        recipe and was left out.

    Raises:
        SpaceError: an unknown setting, a malformed or unfit range, naming the setting.
    """
    mine: list[Dimension] = []
    chosen: dict[str, None] = {}
    for text in wanted:
        if "=" in text:
            mine.append(_parse(recipe, text))
        else:
            chosen |= dict.fromkeys(_matching(text, own))
    named = {dimension.name for dimension in mine}
    theirs = [Dimension.of(name, own[name]) for name in chosen if name not in named]
    known = named | {dimension.name for dimension in theirs}
    usable, notes = [], []
    for dimension in theirs:
        if dimension.only_if is not None and dimension.only_if[0] not in known:
            if not _holds_in(recipe, dimension):
                other, values = dimension.only_if
                wanted_values = "|".join(map(shown, values))
                notes.append(f"{dimension.name} left out: it matters if {other}={wanted_values}")
                continue
            dimension = replace(dimension, only_if=None)
        kept, left_out = _fitting(recipe, dimension)
        notes += left_out
        usable += [kept] if kept is not None else []
    for dimension in mine:
        _refuse_unfit(recipe, dimension)
    return Space((*mine, *_with_live_conditions(usable, mine))), notes


def settings(values: Mapping[str, Value]) -> list[str]:
    """The overrides of a recipe that a trial's values mean."""
    return [f"{_key(name)}={_as_text(value)}" for name, value in values.items()]


def _as_text(value: Value) -> str:
    """A value for an override; a list is kept as its text already."""
    is_list = isinstance(value, str) and value.startswith(("[", "{"))
    return str(value) if is_list else typed_values.format_text(value)


def misfit(recipe: Recipe, values: Mapping[str, Value]) -> str | None:
    """Why a recipe refuses a trial's values; None: it takes them."""
    try:
        apply_overrides(recipe, settings(values))
    except OverrideError as error:
        return str(error)
    return None


def _key(name: str) -> str:
    """The dotted key in the recipe; a dimension's name leaves ``config.`` out."""
    outside = name.partition(".")[0] in ("data", "train", "track")
    return name if outside else _IN_CONFIG + name


def _matching(pattern: str, own: Mapping[str, Range]) -> list[str]:
    name = pattern.removeprefix(_IN_CONFIG)
    found = [key for key in own if fnmatchcase(key, name)]
    if not found:
        near = nearest(name, own)
        hint = f"did you mean {near}? " if near else ""
        raise SpaceError(
            f"--space {pattern}: the method has no range for it; {hint}It has: {', '.join(own)}. "
            "Give another setting a range of its own, as in optim.lr=loguniform(1e-5,1e-3)"
        )
    return found


def _parse(recipe: Recipe, text: str) -> Dimension:
    name, _, rest = text.partition("=")
    key = _find_setting(recipe, name.strip(), text)
    matched = _RANGE.fullmatch(rest.strip())
    if matched is None or matched["kind"] not in _KINDS:
        words = matched["kind"] if matched else rest.strip()
        near = nearest(words, _KINDS)
        hint = f"did you mean {near}(...)? " if near else ""
        raise SpaceError(
            f"--space {text}: {name.strip()} needs a range; {hint}write uniform(LOW,HIGH), "
            "loguniform(LOW,HIGH), int(LOW,HIGH) or choice(VALUE,VALUE,...)"
        )
    inside = _split(matched["inside"])
    kind = matched["kind"]
    only_if = _condition(recipe, matched["condition"], text)
    short = key.removeprefix(_IN_CONFIG)
    if kind == "choice":
        choices = tuple(_typed(recipe, key, item, text) for item in inside)
        return Dimension(name=short, kind="choice", choices=choices, only_if=only_if)
    low, high = _bounds(inside, kind, text)
    _refuse_no_number(recipe, key, kind, text)
    return Dimension(name=short, kind=_KINDS[kind], low=low, high=high, only_if=only_if)


def _condition(
    recipe: Recipe, text: str | None, source: str
) -> tuple[str, tuple[Value, ...]] | None:
    if text is None:
        return None
    name, equals, values = text.partition("=")
    if not equals:
        raise SpaceError(f"--space {source}: write the condition as `if SETTING=VALUE|VALUE`")
    key = _find_setting(recipe, name.strip(), source)
    wanted = tuple(_typed(recipe, key, value.strip(), source) for value in values.split("|"))
    return key.removeprefix(_IN_CONFIG), wanted


def _bounds(inside: list[str], kind: str, source: str) -> tuple[float, float]:
    try:
        low, high = (float(item) for item in inside)
    except ValueError:
        raise SpaceError(
            f"--space {source}: {kind} takes two numbers, as in {kind}(1,8), not "
            f"({', '.join(inside)})"
        ) from None
    return low, high


def _split(inside: str) -> list[str]:
    """Comma-separated values; commas in quotes or brackets don't count."""
    parts, depth, quoted, start = [], 0, False, 0
    for index, letter in enumerate(inside):
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quoted:
            parts.append(inside[start:index].strip())
            start = index + 1
    last = inside[start:].strip()
    return [*parts, last] if last else parts


def _find_setting(recipe: Recipe, name: str, source: str) -> str:
    """The dotted key that a name means: whole, inside the configuration, or an only ending."""
    keys = [key for key in flatten(recipe) if key.partition(".")[0] in _SEARCHABLE]
    if name in keys:
        return name
    if _IN_CONFIG + name in keys:
        return _IN_CONFIG + name
    endings = [key for key in keys if key.endswith(f".{name}")]
    if len(endings) == 1:
        return endings[0]
    shown_keys = [key.removeprefix(_IN_CONFIG) for key in endings]
    if endings:
        raise SpaceError(f"--space {source}: {name} may be {' or '.join(shown_keys)}; name one")
    short = [key.removeprefix(_IN_CONFIG) for key in keys]
    last = {key.rpartition(".")[2]: key for key in reversed(short)}
    near = nearest(name, short) or last.get(nearest(name.rpartition(".")[2], last) or "")
    hint = f"did you mean {near}?" if near else f"Known: {', '.join(short)}"
    raise SpaceError(f"--space {source}: there is no setting {name}; {hint}")


_SEARCHABLE = ("config", "train", "data")


def _typed(recipe: Recipe, key: str, text: str, source: str) -> Value:
    kind = kind_of(recipe, key)
    try:
        value = typed_values.parse_text(kind, text)
    except TypedValueError as error:
        raise SpaceError(f"--space {source}: {key.removeprefix(_IN_CONFIG)}: {error}") from None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return typed_values.format_text(value)


def _refuse_no_number(recipe: Recipe, key: str, kind: str, source: str) -> None:
    """A number for a setting that takes none; a fraction for one that counts."""
    probe = "1" if kind == "int" else "0.5"
    try:
        typed_values.parse_text(kind_of(recipe, key), probe)
    except TypedValueError:
        name, takes = key.removeprefix(_IN_CONFIG), typed_values.describe(kind_of(recipe, key))
        counts = " or int(LOW,HIGH)" if "whole number" in takes else ""
        raise SpaceError(
            f"--space {source}: {name} takes {takes}, so it can't have a {kind} range; use "
            f"choice(...){counts}"
        ) from None


def _refuse_unfit(recipe: Recipe, dimension: Dimension) -> None:
    for value in dimension.ends:
        wrong = _wrong(recipe, dimension, value)
        if wrong is not None:
            raise SpaceError(f"--space {dimension.name}={dimension}: {wrong}")


def _fitting(recipe: Recipe, dimension: Dimension) -> tuple[Dimension | None, list[str]]:
    """A method's own range without the values that this recipe refuses."""
    wrong = {value: _wrong(recipe, dimension, value) for value in dimension.ends}
    notes = [
        f"{dimension.name}={shown(value)} left out: {reason}"
        for value, reason in wrong.items()
        if reason is not None
    ]
    if not notes:
        return dimension, []
    kept = tuple(value for value, reason in wrong.items() if reason is None)
    if dimension.kind != "choice" or not kept:
        return None, notes
    return replace(dimension, choices=kept), notes


def _wrong(recipe: Recipe, dimension: Dimension, value: Value) -> str | None:
    """Why the recipe refuses a value where it is drawn; a condition is made true first."""
    values: dict[str, Value] = {dimension.name: value}
    if dimension.only_if is not None:
        values = {dimension.only_if[0]: dimension.only_if[1][0], **values}
    return misfit(recipe, values)


def _with_live_conditions(theirs: list[Dimension], mine: list[Dimension]) -> list[Dimension]:
    """A method's conditions follow a range that was given anew, as far as it still holds them."""
    by_name = {dimension.name: dimension for dimension in [*theirs, *mine]}
    live = []
    for dimension in theirs:
        if dimension.only_if is None:
            live.append(dimension)
            continue
        other, values = dimension.only_if
        left = tuple(value for value in values if other in by_name and by_name[other].holds(value))
        if left:
            live.append(replace(dimension, only_if=(other, left)))
    return live


def _holds_in(recipe: Recipe, dimension: Dimension) -> bool:
    """Whether the recipe itself meets a condition on a setting that isn't searched."""
    assert dimension.only_if is not None
    other, values = dimension.only_if
    return flatten(recipe).get(_key(other)) in values
