"""``mien explain MODEL``: what predictions rest on, as pictures and numbers."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.evaluate.heat_sheet import HeatRow
    from mien_jobs.explaining import Explanation
    from mien_jobs.model_clips import ModelClips

_READINGS = {
    "deletion_gain": "by so much more the class is missed when the hottest places are blurred than "
    "when random ones are; above 0: the maps point at what the model uses",
    "road_gain": "by so much more it is missed when the hottest places are filled in from around "
    "them than when the coldest are; above 0: the same without traces of what was taken away",
    "similarity_to_random_weights": "of the maps to those of shuffled weights; near 1: they show "
    "edges of the picture, not what was learnt",
    "overlap_with_components": "of compound classes' maps with those of their own basics",
    "overlap_with_other_basics": "and with those of other basics",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from mien_jobs.verbs.model_options import add_clip_options, add_model_argument

    add_model_argument(parser)
    parser.add_argument(
        "inputs", nargs="*", metavar="FILM", help="films, each a clip, in the place of --data"
    )
    add_clip_options(parser, out="explanation")
    parser.add_argument(
        "--clips", type=int, default=16, metavar="N", help="of every class in turn (default: 16)"
    )
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME", help="explain this class in every clip"
    )
    parser.add_argument(
        "--films", action="store_true", help="also write a film of every clip's heat"
    )


def run(args: argparse.Namespace) -> int:
    """Writes heat.png, clips.csv, checks.json, and where there is any attention.png."""
    from mien.media.storage import absolute, join, write_bytes_atomically
    from mien_jobs.explaining import explain_clips
    from mien_jobs.verbs.model_options import plan_of

    if args.clips < 1:
        raise ValueError(f"--clips {args.clips}: expected at least 1")
    model = _model(args)
    found = explain_clips(model, plan_of(args), num_clips=args.clips, class_name=args.class_name)
    out = absolute(args.out)
    name = model.info.method
    _write_sheet(found.pictures, f"Grad-CAM of {name}", join(out, "heat.png"))
    if found.attention:
        title = f"Attention of {name} (bars: over time)"
        _write_sheet(found.attention, title, join(out, "attention.png"))
    if args.films:
        _write_films(found, out)
    write_bytes_atomically(join(out, "clips.csv"), _csv(found.rows).encode())
    write_bytes_atomically(join(out, "checks.json"), json.dumps(found.checks, indent=2).encode())
    print(f"{len(found.rows)} clips explained")
    for check, value in found.checks.items():
        print(f"  {check.replace('_', ' ')} {value:.3f}: {_READINGS[check]}")
    print(f"maps over the frames: {join(out, 'heat.png')}")
    if found.attention:
        print(f"the network's own attention: {join(out, 'attention.png')}")
    if args.films:
        print(f"films of the maps, numbered as the clips' lines: {join(out, 'films')}")
    print(f"a line a clip: {join(out, 'clips.csv')}")
    return 0


def _write_sheet(rows: Sequence[HeatRow], title: str, location: str) -> None:
    from mien.evaluate.heat_sheet import heat_sheet
    from mien.media.storage import write_bytes_atomically

    sheet = io.BytesIO()
    heat_sheet(rows, title).savefig(sheet, format="png")
    write_bytes_atomically(location, sheet.getvalue())


def _write_films(found: Explanation, out: str) -> None:
    from mien.evaluate.heat_film import write_heat_film
    from mien.media.storage import join

    for number, picture in enumerate(found.pictures, start=1):
        write_heat_film(picture, join(join(out, "films"), f"{number:03d}.mp4"))


def _model(args: argparse.Namespace) -> ModelClips:
    from mien_jobs.model_clips import open_model_clips

    if not args.inputs:
        return open_model_clips(args)
    if args.data:
        raise ValueError("give films or --data MANIFEST, not both")
    return _of_films(args)


def _of_films(args: argparse.Namespace) -> ModelClips:
    """The model with films as clips without labels."""
    from mien.clips.manifest import Manifest
    from mien.clips.splits import Split
    from mien.infer.inputs import find_inputs
    from mien.track.references import resolve
    from mien_jobs.data import RunData, load_plan, trained_on
    from mien_jobs.methods import load_method
    from mien_jobs.model_clips import ModelClips
    from mien_jobs.tracking import tracking_uri

    package = resolve(tracking_uri(args.registry, args.storage), args.model)
    info, method = load_method(package)
    films = find_inputs(args.inputs)
    manifest = Manifest.from_rows({"clip_id": film, "uri": film} for film in films)
    ids = tuple(manifest.column("clip_id"))
    data = RunData(
        manifest=manifest,
        label_set=info.label_set,
        split=Split(name="films", train=(), val=(), test=ids),
        loading=load_plan(trained_on(info)),
        manifest_hash="",
    )
    return ModelClips(
        package=package, info=info, method=method, data=data, is_own=False, which="all"
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
