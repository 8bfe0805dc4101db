"""Moving a registry alias from one version to another, with the reason, and back again.

The versions that an alias pointed at are kept as a stack in a tag of the registered model, so that
:func:`rollback` needs nobody's memory. Why a version was promoted or refused is in its tags.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mien.track.mlflow_tracker import open_client
from mien.track.registry import WEIGHTS_TAG, RegistryError

_HISTORY_TAG = "mien.alias_history."
_KEPT_VERSIONS = 50
_MAX_TAG_CHARS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """An alias that moved."""

    before: int | None
    after: int


def version_of(uri: str, name: str, alias: str) -> int | None:
    """The version that an alias points at; None without the model or the alias."""
    aliases = _aliases(open_client(uri), name)
    return int(aliases[alias]) if alias in aliases else None


def find_version(uri: str, name: str, weights_sha256: str) -> int | None:
    """The newest version of a model that holds these weights."""
    found = open_client(uri).search_model_versions(f"name = '{name}'")
    same = [int(one.version) for one in found if one.tags.get(WEIGHTS_TAG) == weights_sha256]
    return max(same, default=None)


def find_run(uri: str, tag: str, value: str) -> str | None:
    """The id of the newest run with a tag; None where there is none."""
    client = open_client(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    quote = '"' if "'" in value else "'"
    query = f"tags.`{tag}` = {quote}{value}{quote}"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs(experiments, query, max_results=1, order_by=order)
    return str(runs[0].info.run_id) if runs else None


def write_verdict(uri: str, name: str, version: int, *, passed: bool, why: str) -> None:
    """Tags a version with what was decided about it, and when."""
    client = open_client(uri)
    tags = {
        "mien.promotion": "promoted" if passed else "refused",
        "mien.promotion_why": why[:_MAX_TAG_CHARS],
        "mien.promotion_time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version), key, value)


def describe_version(uri: str, name: str, version: int, text: str) -> None:
    """The text that the registry's page of a version shows (Markdown)."""
    open_client(uri).update_model_version(name, str(version), description=text)


def move_alias(uri: str, name: str, alias: str, version: int, *, expected: int | None) -> Move:
    """Points an alias at a version and remembers where it pointed before.

    Args:
        uri: of the registry.
        name: of the model.
        alias: to be moved.
        version: where to.
        expected: where it must still point; None: nowhere.

    Raises:
        RegistryError: somebody has moved it in the meantime.
    """
    client = open_client(uri)
    now = version_of(uri, name, alias)
    if now != expected:
        raise RegistryError(
            f"alias {alias!r} of {name!r} has moved from version {expected} to {now} while the "
            "challenger was compared; compare again"
        )
    stack = _history(client, name, alias)
    if now is not None and stack[-1:] != [now]:
        stack.append(now)  # somebody moved it by other means
    _write_history(client, name, alias, [*stack, version])
    client.set_registered_model_alias(name, alias, str(version))
    return Move(before=now, after=version)


def rollback(uri: str, name: str, alias: str) -> Move:
    """Points an alias at the version it pointed at before.

    Raises:
        RegistryError: no such model or alias, or nothing before is known or left.
    """
    client = open_client(uri)
    now = version_of(uri, name, alias)
    if now is None:
        raise RegistryError(f"model {name!r} has no alias {alias!r}; `mien list` shows what exists")
    stack = _history(client, name, alias)
    if stack[-1:] == [now]:
        stack.pop()
    if not stack:
        raise RegistryError(
            f"no version of {name!r} was {alias} before version {now}, so there is nothing to go "
            "back to"
        )
    before = stack[-1]
    try:
        client.get_model_version(name, str(before))
    except MlflowException as error:
        raise RegistryError(
            f"version {before} of {name!r}, which was {alias} before, is gone: {error}"
        ) from error
    client.set_registered_model_alias(name, alias, str(before))
    _write_history(client, name, alias, stack)
    client.set_model_version_tag(name, str(now), "mien.promotion", "rolled back")
    return Move(before=now, after=before)


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(name).aliases or {})
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def _history(client: MlflowClient, name: str, alias: str) -> list[int]:
    tags = client.get_registered_model(name).tags or {}
    return [int(version) for version in json.loads(tags.get(_HISTORY_TAG + alias, "[]"))]


def _write_history(client: MlflowClient, name: str, alias: str, stack: list[int]) -> None:
    text = json.dumps(stack[-_KEPT_VERSIONS:])
    client.set_registered_model_tag(name, _HISTORY_TAG + alias, text)
