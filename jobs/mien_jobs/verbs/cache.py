"""``mien cache {build,check,prune}``: clips decoded once, for every epoch, trial and machine."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING

from mien_jobs.verbs.train import add_override_option

if TYPE_CHECKING:
    from mien.cache.verify import CheckReport
    from mien.clips.manifest import ClipRef

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One command each to fill, verify and clear a cache."""
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    build = commands.add_parser(
        "build",
        help="decode every clip that the cache lacks; goes on where it was interrupted",
        description="Decodes every clip that the cache lacks, in the crops that a method needs.",
    )
    build.add_argument("method", help="the method whose crops are made (`mien list`)")
    build.add_argument("--profile", help="the method's profile (`mien list`)")
    _add_places(build, data_is_required=True)
    build.add_argument(
        "--retry-failed", action="store_true", help="try clips again that could not be decoded"
    )
    add_override_option(build)
    check = commands.add_parser(
        "check",
        help="read everything, compare checksums; 1 if something is damaged or missing",
        description="Reads everything and compares it with its checksums.",
    )
    _add_places(check, data_is_required=False)
    check.add_argument(
        "--drop-damaged", action="store_true", help="remove what is damaged; build makes it anew"
    )
    prune = commands.add_parser(
        "prune",
        help="remove what no clip of the manifests needs",
        description="Removes entries of clips that are not in the manifests, whose consent was "
        "withdrawn or whose source has changed, and files of interrupted programs.",
    )
    _add_places(prune, data_is_required=True)


def _add_places(parser: argparse.ArgumentParser, *, data_is_required: bool) -> None:
    parser.add_argument("--cache", metavar="URI", required=True, help="folder or URI of the cache")
    parser.add_argument(
        "--data",
        metavar="MANIFEST",
        nargs="+",
        required=data_is_required,
        default=[],
        help="manifests of the clips (path or URI)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs one of the commands."""
    commands = {"build": _build, "check": _check, "prune": _prune}
    return commands[args.command](args)


def _build(args: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from mien.cache.settings import CacheSettings
    from mien.cache.store import ClipCache
    from mien.train.local_ray import ray_session
    from mien_jobs.caching import build_with_progress, stored, streams_of
    from mien_jobs.data import load_plan
    from mien_jobs.methods import MethodBuilder, make_recipe
    from mien_jobs.overrides import apply_overrides

    recipe = apply_overrides(make_recipe(args.method, args.profile), args.overrides)
    refs = _clips(args.data, recipe.data.licences)
    # How many classes there are changes no stream's crops.
    builder = MethodBuilder(name=recipe.method, config=recipe.config, classes=("a", "b"))
    loading = load_plan(recipe.data)
    wanted = {
        CacheSettings(crops=loading.crops(spec), stored_as=stored(recipe.data))
        for spec in streams_of(builder())
    }
    cache = ClipCache.open(args.cache, create=True)
    use_ray = recipe.train.workers > 0
    with ray_session(recipe.train) if use_ray else nullcontext():
        for settings in sorted(wanted, key=CacheSettings.describe):
            report = build_with_progress(
                cache,
                refs,
                settings,
                decode_on=recipe.cluster.decode if use_ray else None,
                retry_failed=args.retry_failed,
            )
            print(f"{settings.describe()}: {report.summary()}")
            for clip_id, reason, message in report.failures[:_SHOWN]:
                print(f"  {clip_id}: {reason}: {message}")
            for clip_id in report.absent[:_SHOWN]:
                print(f"  {clip_id}: its file is not there")
    settings_typed = " ".join([f"data.cache={args.cache}", *args.overrides])
    print(f"train with it: mien train {args.method} ... --set {settings_typed}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from mien.cache.store import ClipCache
    from mien.cache.verify import check, drop_damaged
    from mien_jobs.progress import ProgressBar

    cache = ClipCache.open(args.cache)
    refs = _clips(args.data) if args.data else None
    with ProgressBar("shards") as progress:
        report = check(cache, refs, progress=progress)
    _print_check(report, is_complete_wanted=refs is not None)
    if args.drop_damaged and report.damaged:
        drop_damaged(cache, report)
        print(f"dropped {len(report.damaged)} damaged files; `mien cache build` makes them anew")
    return 0 if report.is_sound else 1


def _print_check(report: CheckReport, *, is_complete_wanted: bool) -> None:
    size = report.size_bytes / 1e6
    print(f"{report.entries} entries, {size:.1f} MB, {len(report.damaged)} damaged files")
    for reason, number in report.failures.most_common():
        print(f"  {number} clips that cannot be decoded: {reason}")
    if report.outdated:
        print(f"  {report.outdated} of another version of Mien (`mien cache prune`)")
    if report.leftovers:
        print(f"  {len(report.leftovers)} files of interrupted programs (`mien cache prune`)")
    for message in list(report.damaged.values())[:_SHOWN]:
        print(f"  {message}")
    for settings, found in report.coverage.items():
        print(
            f"{settings.describe()}: {len(found.found)} clips there, {len(found.missing)} missing "
            f"({found.stale} of them as their source has changed), {len(found.absent)} without a "
            "source"
        )
        if found.outlived:
            print(f"  {len(found.outlived)} clips whose source is not there any more")
    if is_complete_wanted and not report.coverage:
        print("no entry is of use to this version of Mien")


def _prune(args: argparse.Namespace) -> int:
    from mien.cache.store import ClipCache
    from mien.cache.verify import prune

    report = prune(ClipCache.open(args.cache), _clips(args.data))
    print(
        f"removed {report.entries} entries and {report.leftovers} files of interrupted programs; "
        f"{report.kept} entries kept"
    )
    return 0


def _clips(manifests: list[str], licences: Collection[str] = ()) -> list[ClipRef]:
    """The clips of all manifests that may be used; one clip named twice is one."""
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips

    refs: list[ClipRef] = []
    for uri in manifests:
        usable = usable_clips(Manifest.read(uri), licences)
        refs += usable.manifest
        if usable.summary():
            print(f"{uri}: {usable.summary()}")
    return list({(ref.clip_id, ref.uri, ref.start_s, ref.end_s): ref for ref in refs}.values())
