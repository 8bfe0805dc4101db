"""Command-line options from the fields of a configuration dataclass.

Each field becomes one option (``num_subjects`` -> ``--num-subjects``), read by its annotation; its
help is the docstring under the field. So a new setting has an option, with help, without a second
list to keep.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from mien_jobs import typed_values
from mien_jobs.typed_values import TypedValueError, field_kinds

ConfigT = TypeVar("ConfigT")


def add_field_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Adds one option for each field that the constructor of ``config`` takes.

    Fields without a default are required; booleans also get a ``--no-...`` form.
    """
    docs = field_docs(config)
    kinds = field_kinds(config)
    group = parser.add_argument_group("settings")
    for item in dataclasses.fields(config):
        if item.init:
            _add_option(group, item, kinds[item.name], docs.get(item.name, ""))


def config_from_options(config: type[ConfigT], options: argparse.Namespace) -> ConfigT:
    """The configuration that the parsed options describe.

    Raises:
        ValueError: a check of the configuration refuses the values.
    """
    given = {name: getattr(options, name) for name in field_kinds(config)}
    return config(**given)


def field_docs(config: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, as one line; base classes included."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            docs.update(_docs_in_source(cls))
    return docs


def _docs_in_source(config: type) -> dict[str, str]:
    try:
        source = inspect.getsource(config)
    except OSError:  # made at run time: no source, no docstrings
        return {}
    statements = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(statements, ast.ClassDef)
    docs = {}
    for field, doc in zip(statements.body, statements.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
            and isinstance(doc.value.value, str)
        ):
            docs[field.target.id] = " ".join(doc.value.value.replace("`", "").split())
    return docs


def _add_option(group: Any, item: dataclasses.Field[Any], kind: Any, doc: str) -> None:
    flag = "--" + item.name.replace("_", "-")
    default = _default_of(item)
    required = default is dataclasses.MISSING
    settings: dict[str, Any] = {
        "dest": item.name,
        "required": required,
        "default": None if required else default,
        "help": _help_text(doc or typed_values.describe(kind), default),
    }
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
        return
    group.add_argument(flag, type=_Reader(kind), metavar=_metavar(kind), **settings)


class _Reader:
    """Reads an option's text by the annotation of its field, for argparse."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __call__(self, text: str) -> Any:
        try:
            return typed_values.parse_text(self.kind, text)
        except TypedValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


def _default_of(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _help_text(doc: str, default: object) -> str:
    """The help with the default as one types it (argparse would show Python's spelling)."""
    line = doc.replace("%", "%%")
    if default is dataclasses.MISSING:
        return f"{line} (required)"
    if isinstance(default, tuple):
        shown = ",".join(str(part) for part in default) or "nothing"
    else:
        shown = typed_values.format_text(default)
    return f"{line} (default: {shown.replace('%', '%%')})"


def _metavar(kind: Any) -> str:
    """A short stand-in for the value: a choice is spelt out, the rest is told by its type."""
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    if typing.get_origin(kind) is Literal:
        return "|".join(str(option) for option in members)
    if typing.get_origin(kind) is tuple:
        return "A,B,..."
    if len(members) == 1:  # X | None
        return f"{_metavar(members[0])}|none"
    return {int: "N", float: "X", bool: "true|false", Path: "PATH"}.get(kind, "TEXT")
