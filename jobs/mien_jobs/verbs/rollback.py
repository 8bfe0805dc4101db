"""``mien rollback --name NAME``: the champion before becomes champion again."""

from __future__ import annotations

import argparse

from mien.track.promotion import rollback
from mien_jobs.tracking import tracking_uri
from mien_jobs.verbs.model_options import add_registry_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--name", required=True, help="registered model")
    parser.add_argument("--alias", default="champion", help="default: %(default)s")
    add_registry_options(parser)


def run(args: argparse.Namespace) -> int:
    """Moves the alias back by one promotion."""
    uri = tracking_uri(args.registry, args.storage)
    if uri is None:
        raise ValueError("rollback moves an alias of a registry: --registry must not be off")
    move = rollback(uri, args.name, args.alias)
    print(f"{args.name}@{args.alias} is version {move.after} again (was {move.before})")
    return 0
