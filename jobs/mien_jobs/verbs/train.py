"""``mien train METHOD``: one training, tracked, scored and registered."""

from __future__ import annotations

import argparse
from pathlib import Path

from mien_jobs import overrides
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import Recipe
from mien_jobs.training import TrainedModel, prepare, run_training, with_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("method", help="name of a method (`mien list`)")
    parser.add_argument("--profile", help="the method's profile (`mien list`)")
    parser.add_argument("--data", metavar="MANIFEST", help="manifest of the clips (path or URI)")
    parser.add_argument("--name", help="name of the run; the same name goes on with the same run")
    parser.add_argument(
        "--register", metavar="MODEL", help="registry name under which the model is registered"
    )
    add_override_option(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, show shapes, sizes and memory, run one step, write nothing",
    )


def add_override_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--set KEY=VALUE ...`` (``args.overrides``)."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="settings by dotted key, such as train.seed=1 config.optim.lr=3e-4",
    )


def build_recipe(args: argparse.Namespace) -> tuple[Recipe, list[str]]:
    """The recipe that was asked for, and how it differs from the profile's."""
    default = make_recipe(args.method, args.profile)
    wanted = list(args.overrides)
    if args.register:
        wanted.append(f"track.model={args.register}")
    recipe = overrides.apply_overrides(with_data(default, args.data, args.name), wanted)
    return recipe, overrides.diff(recipe, default)


def run(args: argparse.Namespace) -> int:
    """Trains, or shows what would be trained."""
    recipe, changed = build_recipe(args)
    print(f"recipe {recipe.method}, run {recipe.name!r}; changed from its profile:")
    print("\n".join(f"  {line}" for line in changed) or "  nothing")
    prepared = prepare(recipe)
    if args.dry_run:
        from mien_jobs.dry_run import dry_run

        print(dry_run(prepared))
        return 0
    print_result(run_training(prepared), recipe)
    return 0


def print_result(model: TrainedModel, recipe: Recipe) -> None:
    """Where everything lies, and what to type next."""
    here = str(Path.cwd()) + "/"
    shown = model.location.removeprefix(here)
    print(f"model package: {shown}")
    if not model.features_only:
        print(f"predict a file: mien predict VIDEO --model {shown}")
