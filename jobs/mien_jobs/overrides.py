"""Dotted overrides over nested frozen dataclasses, and their JSON.

A recipe is a typed Python function that returns the whole run as frozen dataclasses; the command
line changes single settings of it: ``train.lr=3e-4``, ``method.adapt.epochs=5``,
``stream.views.0.num_frames=8``. Values are read by the annotation of the field, an unknown key is
refused by naming the nearest, and the checks of each ``__post_init__`` run on the result.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from mien_jobs import typed_values
from mien_jobs.typed_values import Kind, TypedValueError, field_kinds, is_config, join

RecipeT = TypeVar("RecipeT")


class OverrideError(ValueError):
    """An override does not fit the recipe; the message says what would."""


@dataclasses.dataclass(slots=True)
class _Node:
    """One level of the overrides, by key; a leaf holds the text right of the ``=``."""

    children: dict[str, _Node] = dataclasses.field(default_factory=dict)
    text: str | None = None
    source: str = ""

    def sources(self) -> list[str]:
        """The overrides at and below this node, as they were typed."""
        below = [source for child in self.children.values() for source in child.sources()]
        return ([self.source] if self.text is not None else []) + below


def apply_overrides(recipe: RecipeT, overrides: Sequence[str]) -> RecipeT:
    """The recipe with settings replaced, as an object of the same type.

    All overrides are applied together, so that two settings which are only valid together can be
    changed together.

    Args:
        recipe: an instance of a (nested, frozen) dataclass.
        overrides: texts ``dotted.key=value``.

    Raises:
        OverrideError: an override has no ``=``, is given twice, names no setting, does not fit its
            setting's type, or a check of the recipe refuses the result.
    """
    root = _Node()
    for override in overrides:
        _insert(root, override)
    return cast(RecipeT, _rebuild(recipe, None, root, "", recipe))


def flatten(recipe: object) -> dict[str, object]:
    """Every setting by dotted key, in the order of the fields.

    Dataclasses, mappings and tuples that hold dataclasses are opened; tuples of plain values and
    empty containers are values.
    """
    flat: dict[str, object] = {}
    _flatten_into(flat, recipe, "")
    return flat


def kind_of(recipe: object, key: str) -> Kind:
    """The annotation of a setting, by dotted key.

    Raises:
        OverrideError: there is no such setting, or it lies in a mapping or a tuple.
    """
    group, _, name = key.rpartition(".")
    value: Any = recipe
    for part in group.split(".") if group else ():
        value = getattr(value, part, None)
    kinds = field_kinds(type(value)) if is_config(value) else {}
    if name not in kinds:
        raise OverrideError(f"there is no single setting {key}")
    return kinds[name]


def diff(recipe: object, default: object) -> list[str]:
    """One line for each setting that differs from the default: ``key: default -> value``."""
    new, old = flatten(recipe), flatten(default)
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if key not in old:
            lines.append(f"{key}: (absent) -> {typed_values.format_text(new[key])}")
        elif key not in new:
            lines.append(f"{key}: {typed_values.format_text(old[key])} -> (absent)")
        elif not _same(old[key], new[key]):
            was, now = typed_values.format_text(old[key]), typed_values.format_text(new[key])
            lines.append(f"{key}: {was} -> {now}")
    return lines


def to_json(recipe: object) -> str:
    """The recipe as indented JSON, keys in the order of the fields."""
    return json.dumps(typed_values.to_plain(recipe), indent=2, allow_nan=False)


@overload
def from_json(kind: type[RecipeT], text: str, *, complete: bool = True) -> RecipeT: ...


@overload
def from_json(kind: RecipeT, text: str, *, complete: bool = True) -> RecipeT: ...


def from_json(kind: Any, text: str, *, complete: bool = True) -> Any:
    """Reads :func:`to_json`'s output back, strictly: no key may be unknown or missing.

    Args:
        kind: the dataclass; or an instance of it, such as the default recipe, which also says what
            stands in fields that are annotated with a base class or a protocol.
        text: the JSON.
        complete: False for what an older Mien may have written: fields that it did not know take
            their defaults, which are what was done before there was a choice.

    Raises:
        OverrideError: the text is no JSON or does not fit; the message names the place.
    """
    try:
        return typed_values.from_plain(kind, json.loads(text), complete=complete)
    except json.JSONDecodeError as error:
        raise OverrideError(f"not JSON: {error}") from error
    except TypedValueError as error:
        raise OverrideError(str(error)) from error


def _insert(root: _Node, override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key or any(not part for part in key.split(".")):
        raise OverrideError(f"{override!r} is no override: write KEY=VALUE, as in train.lr=3e-4")
    node = root
    for part in key.split("."):
        if node.text is not None:
            raise OverrideError(f"{node.source!r} and {override!r} contradict each other: give one")
        node = node.children.setdefault(part, _Node())
    if node.text is not None or node.children:
        earlier = node.sources()[0]
        raise OverrideError(f"{earlier!r} and {override!r} contradict each other: give one")
    node.text, node.source = text, override


def _rebuild(value: Any, kind: Kind, node: _Node, where: str, root: object) -> Any:
    """``value`` with the overrides of ``node`` applied; ``kind`` is its annotation."""
    if node.text is not None:
        return _parse(value, kind, node, where)
    if not node.children:
        return value
    if is_config(value):
        return _rebuild_config(value, node, where, root)
    if isinstance(value, Mapping):
        if value:  # the names of an empty mapping are open: whoever reads it checks them
            _check(node, value, where, root)
        inner = _inner_kind(kind)
        changed = {
            key: _rebuild(value.get(key), inner, child, join(where, key), root)
            for key, child in node.children.items()
        }
        return {**value, **changed}
    if isinstance(value, tuple) and any(is_config(item) for item in value):
        members = {str(index): item for index, item in enumerate(value)}
        _check(node, members, where, root)
        return tuple(
            _rebuild(item, None, node.children.get(index, _Node()), join(where, index), root)
            for index, item in members.items()
        )
    raise OverrideError(_no_group(value, kind, node, where))


def _rebuild_config(value: Any, node: _Node, where: str, root: object) -> Any:
    kinds = field_kinds(type(value))
    _check(node, kinds, where, root)
    changed = {
        name: _rebuild(getattr(value, name), kinds[name], child, join(where, name), root)
        for name, child in node.children.items()
    }
    try:
        return dataclasses.replace(value, **changed)
    except ValueError as error:
        raise OverrideError(f"{' '.join(node.sources())}: {error}") from error


def _parse(value: Any, kind: Kind, node: _Node, where: str) -> Any:
    text = cast(str, node.text)
    if kind is None:  # a member of a tuple of dataclasses
        kind = type(value)
    try:
        return typed_values.parse_text(kind, text)
    except TypedValueError as error:
        if is_config(value):
            first = next(iter(flatten(value)), "KEY")
            raise OverrideError(
                f"{node.source}: {where} is a group of settings; set one of them, "
                f"as in {where}.{first}=..., or give a JSON object ({error})"
            ) from None
        raise OverrideError(
            f"{node.source}: {error}; for example {where}={typed_values.example(kind)}"
        ) from None


def _check(node: _Node, known: Mapping[str, object], where: str, root: object) -> None:
    """Refuses keys that are not there, naming the nearest setting anywhere in the recipe."""
    for name, child in node.children.items():
        if name in known:
            continue
        source = child.sources()[0]
        key = source.partition("=")[0].strip()
        group = f"in {where}" if where else "at the top"
        close = _nearest_key(key, name, list(known), where, list(flatten(root)))
        raise OverrideError(
            f"{source}: unknown key {join(where, name)}; did you mean {close}? "
            f"Known {group}: {', '.join(known)}"
        )


def _nearest_key(key: str, name: str, siblings: list[str], where: str, keys: list[str]) -> str:
    """A setting elsewhere of the same name; else a similar sibling; else the most similar."""
    by_last: dict[str, list[str]] = {}
    for other in keys:
        by_last.setdefault(other.rpartition(".")[2], []).append(other)
    last = key.rpartition(".")[2]
    sibling = typed_values.nearest(name, siblings)
    similar = last if last in by_last else typed_values.nearest(last, by_last)
    if sibling is not None and similar != last:
        return join(where, sibling)
    candidates = by_last[similar] if similar else [join(where, name) for name in siblings] or keys
    return max(candidates, key=lambda other: difflib.SequenceMatcher(None, key, other).ratio())


def _no_group(value: object, kind: Kind, node: _Node, where: str) -> str:
    source = node.sources()[0]
    if value is None:
        return (
            f"{source}: {where} is none, so nothing in it can be set; switch it on and set it "
            f"in one: {where}='{{\"{source.partition('=')[0].rpartition('.')[2]}\": ...}}' "
            f"({typed_values.describe(kind)})"
        )
    return (
        f"{source}: {where} is a value ({typed_values.format_text(value)}) and has no keys; "
        f"write {where}={typed_values.example(kind)}"
    )


def _inner_kind(kind: Kind) -> Kind:
    arguments: tuple[Kind, ...] = typing.get_args(kind)
    return arguments[1] if len(arguments) == 2 else Any


def _same(old: object, new: object) -> bool:
    """Equal and of the same type: 1, 1.0 and True are three settings."""
    return type(old) is type(new) and old == new


def _flatten_into(flat: dict[str, object], value: object, where: str) -> None:
    members: Mapping[str, object] = {}
    if is_config(value):
        members = {name: getattr(value, name) for name in field_kinds(type(value))}
    elif isinstance(value, Mapping):
        members = {str(key): item for key, item in value.items()}
    elif isinstance(value, tuple) and any(is_config(item) for item in value):
        members = {str(index): item for index, item in enumerate(value)}
    if not members:
        flat[where] = value
    for name, item in members.items():
        _flatten_into(flat, item, join(where, name))
