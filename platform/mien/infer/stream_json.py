"""StreamSpec as JSON and back, strictly: what a shipped model says about how clips must look."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from mien_models.contract import StreamSpec


def stream_spec_to_json(spec: StreamSpec) -> dict[str, Any]:
    """The spec as JSON values; :func:`stream_spec_from_json` reads it back equal."""
    return typing.cast(dict[str, Any], _to_json(spec))


def stream_spec_from_json(data: Any) -> StreamSpec:
    """Reads what :func:`stream_spec_to_json` wrote; settings left out take their defaults.

    Raises:
        ValueError: an unknown setting (the nearest one is named) or a value of a wrong type.
    """
    return typing.cast(StreamSpec, _read(StreamSpec, data, "stream"))


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return value


def _read(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as the annotated type ``kind``; ``where`` is its dotted name for errors."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in options and type(value) in {type(option) for option in options}:
            return value
        raise ValueError(f"{where}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in options:
            return None
        (kept,) = (option for option in options if option is not types.NoneType)
        return _read(kept, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return tuple(_read(options[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    return _read_plain(kind, value, where)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with settings, got {value!r}")
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{where}: unknown setting {key!r}.{hint} Settings: {', '.join(names)}."
            )
    return kind(**{key: _read(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _read_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
