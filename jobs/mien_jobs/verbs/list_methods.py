"""``mien list``: the methods that can be trained, and the models that were registered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    parser.add_argument(
        "method", nargs="?", help="show one method's profiles and every setting of it"
    )
    parser.add_argument(
        "--profile", help="the profile whose settings are shown (default: the first)"
    )
    parser.add_argument("--models", action="store_true", help="list registered models instead")
    parser.add_argument(
        "--registry", default="auto", help="MLflow URI of the registry, for --models"
    )
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")


def run(args: argparse.Namespace) -> int:
    """Prints the table that was asked for."""
    if args.models:
        lines = _model_lines(args.registry, args.storage)
    elif args.method:
        lines = _setting_lines(args.method, args.profile)
    else:
        lines = _method_lines()
    print("\n".join(lines))
    return 0


def _method_lines() -> list[str]:
    from mien_jobs.methods import METHODS, all_methods

    rows = []
    for name, entry in sorted(all_methods().items()):
        source = "" if name in METHODS else " (from another package)"
        rows.append((name, ", ".join(entry.profiles), entry.summary + source))
    return [
        *_table(("method", "profiles", "what it is"), rows),
        "",
        "every setting of one: mien list METHOD; train it: mien train METHOD --data MANIFEST",
    ]


def _setting_lines(name: str, profile: str | None) -> list[str]:
    from mien_jobs.methods import find_method, make_recipe
    from mien_jobs.overrides import flatten
    from mien_jobs.typed_values import format_text

    entry = find_method(name)
    recipe = make_recipe(name, profile)
    settings = [f"{key}={format_text(value)}" for key, value in flatten(recipe).items()]
    shown = profile or entry.profiles[0]
    return [
        f"{name}: {entry.summary}",
        f"profile {shown} of {', '.join(entry.profiles)}",
        *settings,
    ]


def _model_lines(registry: str, storage: str) -> list[str]:
    from mlflow import MlflowClient

    from mien_jobs.tracking import tracking_uri

    address = tracking_uri(registry, storage)
    if address is None:
        raise ValueError("--registry off: name the registry's address, or auto")
    # MLflow would make an empty data base there, and say that it holds no models.
    database = address.removeprefix("sqlite:///")
    if database != address and not Path(database).is_file():
        raise ValueError(
            f"there is no registry at {database}; say where the runs are: --storage FOLDER, or "
            "the registry's address: --registry URI"
        )
    client = MlflowClient(address)
    rows: list[tuple[str, ...]] = []
    for model in client.search_registered_models():
        # A search leaves the aliases out.
        aliases = client.get_registered_model(model.name).aliases
        for version in client.search_model_versions(f"name='{model.name}'"):
            number = str(version.version)
            own = sorted(alias for alias, other in aliases.items() if str(other) == number)
            rows.append((model.name, number, ", ".join(own) or "-", version.status))
    if not rows:
        return [f"no registered models in {address}"]
    return _table(("model", "version", "aliases", "status"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
