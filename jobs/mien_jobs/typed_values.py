"""Values of annotated fields: from the text of a command line, from JSON, and back.

The annotations of the frozen configuration dataclasses decide: ``int``, ``float``, ``bool``,
``str``, ``Path``, ``None``, ``Literal``, unions, tuples, ``Mapping[str, ...]`` and dataclasses of
these. Nothing is guessed from how a value looks: ``1`` is a float where a float is wanted, and
``true`` is text where text is wanted.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union

Kind = Any
"""A type annotation, resolved (no string)."""

_NONE_WORDS = ("none", "null")
_BOOL_WORDS = {"true": True, "false": False}


class TypedValueError(ValueError):
    """A value does not fit its annotation; says what was expected."""


def field_kinds(kind: type) -> dict[str, Kind]:
    """The resolved annotations of the fields that a dataclass's constructor takes."""
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind) if item.init}


def is_config(value: object) -> bool:
    """Whether ``value`` is an instance of a dataclass (not the class itself)."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of ``names``; None when nothing is similar."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return found[0] if found else None


def describe(kind: Kind) -> str:
    """What a field of this kind takes, in words for an error message."""
    origin, arguments = _origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return f"a comma-separated list, each {describe(arguments[0])}"
        return f"{len(arguments)} comma-separated values"
    if _is_mapping(kind):
        return "a JSON object"
    if dataclasses.is_dataclass(kind):
        return f"a JSON object with settings of {getattr(kind, '__name__', kind)}"
    words: dict[Kind, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        type(None): "none",
    }
    return words.get(kind, "a JSON value")


def example(kind: Kind) -> str:
    """A text that :func:`parse_text` takes for this kind."""
    origin, arguments = _origin(kind), typing.get_args(kind)
    if origin is Literal:
        return str(arguments[0])
    if origin in (Union, types.UnionType):
        return example(next(member for member in arguments if member is not type(None)))
    if origin is tuple:
        members = arguments[:1] * 2 if len(arguments) == 2 and arguments[1] is ... else arguments
        return ",".join(example(member) for member in members)
    examples: dict[Kind, str] = {
        int: "8",
        float: "3e-4",
        bool: "true",
        str: "name",
        Path: "folder/file",
        type(None): "none",
    }
    return examples.get(kind, "'{}'")


def parse_text(kind: Kind, text: str) -> Any:
    """Reads the right-hand side of ``key=value``.

    ``none`` stands for None where None is allowed; a tuple is comma-separated, with or without
    brackets; anything that JSON can say may also be given as JSON (a text with a comma inside a
    tuple has to be).

    Raises:
        TypedValueError: the text does not fit; the message says what would.
    """
    origin, arguments = _origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse_union(kind, arguments, text)
    if origin is Literal:
        for option in arguments:
            if text in (str(option), format_text(option)):
                return option
        raise _unfit(kind, text)
    if origin is tuple:
        return _parse_tuple(kind, arguments, text)
    reader = _TEXT_READERS.get(kind)
    if reader is None:
        return _parse_json(kind, text)
    try:
        return reader(text)
    except (ValueError, KeyError):
        raise _unfit(kind, text) from None


def format_text(value: object) -> str:
    """The text that :func:`parse_text` reads back as ``value``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return json.dumps(str(value)) if _needs_quotes(str(value)) else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple | list | Mapping) or is_config(value):
        return json.dumps(to_plain(value))
    return str(value)


def to_plain(value: object) -> Any:
    """JSON values of a configuration: dicts, lists, numbers, texts, None.

    Infinite numbers become the texts ``inf`` and ``-inf``, which JSON lacks.

    Raises:
        TypedValueError: NaN, or an object that a configuration may not hold.
    """
    if is_config(value):
        fields = dataclasses.fields(typing.cast(Any, value))
        return {item.name: to_plain(getattr(value, item.name)) for item in fields if item.init}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise TypedValueError("a setting may not be NaN")
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypedValueError(f"a setting may not be a {type(value).__name__}: {value!r}")


def from_plain(kind: Kind, plain: Any, *, complete: bool = True, where: str = "") -> Any:
    """The inverse of :func:`to_plain`, strict: no unknown, and if ``complete`` no missing, key.

    Args:
        kind: the annotation, or an instance of a dataclass, whose type is then meant; the parts of
            an instance also say the types of fields that are annotated vaguely.
        complete: whether every field must be given; otherwise defaults fill the gaps.
        where: dotted name of the value, for messages.

    Raises:
        TypedValueError: the value does not fit; the message names the place.
    """
    if is_config(kind) or dataclasses.is_dataclass(kind):
        return _config_from_plain(kind, plain, complete, where)
    origin, arguments = _origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_from_plain(kind, arguments, plain, complete, where)
    if origin is Literal:
        for option in arguments:
            if type(option) is type(plain) and option == plain:
                return option
        raise _unfit(kind, plain, where)
    if origin is tuple:
        return _tuple_from_plain(kind, arguments, plain, complete, where)
    if _is_mapping(kind):
        if not isinstance(plain, dict):
            raise _unfit(kind, plain, where)
        inner = arguments[1] if len(arguments) == 2 else Any
        return {
            key: from_plain(inner, item, complete=complete, where=join(where, key))
            for key, item in plain.items()
        }
    return _scalar_from_plain(kind, plain, where)


def join(where: str, name: str | int) -> str:
    """A dotted name one level deeper."""
    return f"{where}.{name}" if where else str(name)


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuses a name that is not among ``known``, naming the nearest and listing all of them.

    Raises:
        TypedValueError: for the first unknown name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean {join(where, close)}? " if close else ""
            group = f"in {where}" if where else "at the top"
            listing = ", ".join(names) if names else "nothing"
            raise TypedValueError(
                f"unknown key {join(where, name)}; {hint}Known {group}: {listing}"
            )


def _parse_union(kind: Kind, members: tuple[Kind, ...], text: str) -> Any:
    if type(None) in members and text.lower() in _NONE_WORDS:
        return None
    real = [member for member in members if member is not type(None)]
    if len(real) == 1 and (dataclasses.is_dataclass(real[0]) or _is_mapping(real[0])):
        return parse_text(real[0], text)  # its own words say more than "expected ... or none"
    # Text takes everything, so it is asked last.
    for member in sorted(real, key=lambda member: member in (str, Path, Any)):
        try:
            return parse_text(member, text)
        except TypedValueError:
            continue
    raise _unfit(kind, text)


def _parse_tuple(kind: Kind, arguments: tuple[Kind, ...], text: str) -> Any:
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            plain = json.loads(stripped)
        except json.JSONDecodeError:
            stripped = stripped.removeprefix("[").removesuffix("]")
        else:
            return from_plain(kind, plain, complete=False)
    if stripped.startswith("(") and stripped.endswith(")"):
        stripped = stripped[1:-1]
    parts = [part.strip() for part in stripped.split(",")] if stripped else []
    if parts and not parts[-1]:
        parts.pop()
    kinds = _member_kinds(kind, arguments, len(parts), text)
    return tuple(parse_text(member, part) for member, part in zip(kinds, parts, strict=True))


def _parse_json(kind: Kind, text: str) -> Any:
    try:
        plain = json.loads(text)
    except json.JSONDecodeError:
        raise _unfit(kind, text) from None
    return from_plain(kind, plain, complete=False)


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError(text)
    return number


def _parse_str(text: str) -> str:
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        loaded = json.loads(text)
        return str(loaded)
    return text


_TEXT_READERS: dict[Kind, Callable[[str], Any]] = {
    int: int,
    float: _parse_float,
    bool: lambda text: _BOOL_WORDS[text.lower()],
    str: _parse_str,
    Path: lambda text: Path(_parse_str(text)),
    type(None): lambda text: {word: None for word in _NONE_WORDS}[text.lower()],
}


def _config_from_plain(kind: Kind, plain: Any, complete: bool, where: str) -> Any:
    instance = kind if is_config(kind) else None
    cls = type(kind) if instance is not None else kind
    if not isinstance(plain, dict):
        raise _unfit(cls, plain, where)
    kinds = field_kinds(cls)
    check_keys(plain, kinds, where)
    required = kinds if complete else _without_default(cls)
    missing = [name for name in required if name not in plain]
    if missing:
        raise TypedValueError(f"{where or cls.__name__}: missing {', '.join(missing)}")
    values = {}
    for name, item in plain.items():
        member = kinds[name] if item is None else _member_of(instance, name, kinds[name])
        values[name] = from_plain(member, item, complete=complete, where=join(where, name))
    try:
        return cls(**values)
    except ValueError as error:
        raise TypedValueError(f"{where or cls.__name__}: {error}") from error


def _member_of(instance: object | None, name: str, kind: Kind) -> Kind:
    """The value's own type says more than a vague annotation (a protocol, a base class)."""
    current = getattr(instance, name, None)
    choices = [member for member in typing.get_args(kind) if dataclasses.is_dataclass(member)]
    return current if is_config(current) and len(choices) < 2 else kind


def _without_default(cls: type) -> list[str]:
    return [
        item.name
        for item in dataclasses.fields(cls)
        if item.init
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]


def _union_from_plain(
    kind: Kind, members: tuple[Kind, ...], plain: Any, complete: bool, where: str
) -> Any:
    failures = []
    for member in members:
        try:
            return from_plain(member, plain, complete=complete, where=where)
        except TypedValueError as error:
            failures.append((member, error))
    # With one candidate besides None, its own words are the better ones.
    real = [error for member, error in failures if member is not type(None)]
    raise real[0] if len(real) == 1 else _unfit(kind, plain, where)


def _tuple_from_plain(
    kind: Kind, arguments: tuple[Kind, ...], plain: Any, complete: bool, where: str
) -> Any:
    if not isinstance(plain, list):
        raise _unfit(kind, plain, where)
    kinds = _member_kinds(kind, arguments, len(plain), plain, where)
    return tuple(
        from_plain(member, item, complete=complete, where=join(where, index))
        for index, (member, item) in enumerate(zip(kinds, plain, strict=True))
    )


def _member_kinds(
    kind: Kind, arguments: tuple[Kind, ...], count: int, value: object, where: str = ""
) -> list[Kind]:
    if not arguments:
        return [Any] * count
    if len(arguments) == 2 and arguments[1] is ...:
        return [arguments[0]] * count
    if count != len(arguments):
        raise _unfit(kind, value, where)
    return list(arguments)


def _scalar_from_plain(kind: Kind, plain: Any, where: str) -> Any:
    if kind is float:
        if plain in ("inf", "-inf") or (
            isinstance(plain, int | float) and not isinstance(plain, bool)
        ):
            return float(plain)
    elif kind is Path:
        if isinstance(plain, str):
            return Path(plain)
    elif kind in (int, bool, str, type(None)):
        if type(plain) is kind:
            return plain
    elif kind in (Any, object):
        return tuple(plain) if isinstance(plain, list) else plain
    raise _unfit(kind, plain, where)


def _origin(kind: Kind) -> Any:
    return typing.get_origin(kind)


def _is_mapping(kind: Kind) -> bool:
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _needs_quotes(text: str) -> bool:
    """Whether plain text could be read as something else where more than text is allowed."""
    if text.startswith(('"', "[", "(", "{")) or text.lower() in (*_NONE_WORDS, *_BOOL_WORDS):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unfit(kind: Kind, value: object, where: str = "") -> TypedValueError:
    place = f"{where}: " if where else ""
    return TypedValueError(f"{place}expected {describe(kind)}, not {value!r}")
