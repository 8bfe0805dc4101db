"""``mien benchmark PROTOCOL METHOD``: all folds of a protocol, beside published results."""

from __future__ import annotations

import argparse

from mien.evaluate.protocols import PROTOCOLS, Protocol
from mien.media.storage import absolute, join
from mien_jobs.benchmarking import run_benchmark
from mien_jobs.typed_values import nearest
from mien_jobs.verbs.train import add_override_option, build_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("protocol", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("method", help="name of a method (`mien list`)")
    parser.add_argument("--profile", help="the method's profile (`mien list`)")
    parser.add_argument(
        "--data", metavar="MANIFEST", required=True, help="the data set's manifest (`mien ingest`)"
    )
    parser.add_argument("--name", help="of the benchmark; the same name goes on with the same one")
    add_override_option(parser)
    parser.set_defaults(register=None)


def run(args: argparse.Namespace) -> int:
    """Runs every fold that is not finished; prints the table."""
    protocol = find_protocol(args.protocol)
    args.name = args.name or f"{protocol.name}-{args.method}"
    recipe, changed = build_recipe(args)
    print(f"protocol {protocol.name}, {recipe.method}; changed from its profile:")
    print("\n".join(f"  {line}" for line in changed) or "  nothing")
    result = run_benchmark(protocol, recipe)
    print(result.report().to_markdown())
    print(f"page: {join(join(absolute(recipe.storage), recipe.name), 'benchmark.html')}")
    return 0


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name not in PROTOCOLS:
        near = nearest(name, list(PROTOCOLS))
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(f"there is no protocol {name!r}; {hint}Known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
