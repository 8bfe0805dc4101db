"""``mien clips show MANIFEST [CLIP_ID]``: rows of a manifest as a table, or one clip in full."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mien_jobs.tables import plain_table, print_table

if TYPE_CHECKING:
    from mien.clips.manifest import Manifest

USUAL_COLUMNS = ("clip_id", "subject_id", "label", "split", "fold", "num_frames", "uri")
"""Shown unless --columns says otherwise; those without any value are left out."""
_NULLS = ("", "null", "none")
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which clips, which columns."""
    parser.add_argument("manifest", help="manifest file or folder, path or URI")
    parser.add_argument("clip_id", nargs="?", help="show all that is known of this clip")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only clips with this value, as in label=anger; nothing after = means empty; may be "
        "given several times",
    )
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="rows (default: 20)")
    parser.add_argument("--columns", metavar="A,B,...", help="columns to show; all: all of them")


def run(args: argparse.Namespace) -> int:
    """Prints the table, or the clip."""
    from mien.clips.manifest import Manifest

    if args.limit < 1:
        raise ValueError(f"--limit {args.limit}: expected 1 or more")
    manifest = Manifest.read(args.manifest)
    if args.clip_id is not None:
        if args.where or args.columns:
            raise ValueError("a clip is shown in full; --where and --columns are for the table")
        _print_clip(_only(manifest, args.clip_id))
        return 0
    chosen = manifest
    for condition in args.where:
        chosen = _where(chosen, condition)
    names = _columns(args.columns, chosen)
    rows = chosen.table.slice(0, args.limit).select(names).to_pylist(maps_as_pydicts="lossy")
    print_table(names, [[short(row[name]) for name in names] for row in rows])
    matching = f", {len(chosen)} match" if args.where else ""
    print(f"{len(rows)} of {len(manifest)} clips shown{matching}")
    return 0


def short(value: Any) -> str:
    """A value of a cell on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_curve(item)}" for key, item in value.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(short(item) for item in value)
    return str(value)


def _curve(value: Any) -> str:
    """A number, or the range of a list of them."""
    if not isinstance(value, Sequence):
        return short(value)
    known = [item for item in value if item is not None and item == item]
    if not known:
        return "not coded"
    return f"{min(known):.2g}..{max(known):.2g} in {len(value)} frames"


def _in_full(value: Any) -> str:
    """A value for the page of one clip: each entry of a mapping on a line of its own."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key} {_curve(item)}" for key, item in value.items()) or "-"
    return short(value)


def _only(manifest: Manifest, clip_id: str) -> Manifest:
    from mien_jobs.typed_values import nearest

    ids = manifest.column("clip_id")
    if clip_id not in ids:
        near = nearest(clip_id, ids)
        hint = f" Did you mean {near!r}?" if near else ""
        raise ValueError(
            f"no clip {clip_id!r} among {len(ids)}.{hint} `mien clips show MANIFEST` lists them"
        )
    return manifest.by_ids([clip_id])


def _where(manifest: Manifest, condition: str) -> Manifest:
    name, equals, text = condition.partition("=")
    if not equals:
        raise ValueError(f"--where {condition}: expected COLUMN=VALUE, as in label=anger")
    values = manifest.column(name)
    return manifest.filter([_matches(value, text) for value in values])


def _matches(value: Any, text: str) -> bool:
    """Whether a value is what was typed."""
    if value is None:
        return text.lower() in _NULLS
    if isinstance(value, bool):
        return _BOOLEANS.get(text.lower()) is value
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == text


def _columns(wish: str | None, manifest: Manifest) -> list[str]:
    known = manifest.table.column_names
    if wish == "all":
        return list(known)
    if wish is not None:
        names = [name.strip() for name in wish.split(",") if name.strip()]
        for name in names:
            manifest.column(name)  # an unknown one raises with the nearest name
        return names
    table = manifest.table
    return [name for name in USUAL_COLUMNS if table[name].null_count < max(1, len(table))]


def _print_clip(manifest: Manifest) -> None:
    from mien.media.decode import probe_clip
    from mien.media.errors import ClipError

    (row,) = manifest.table.to_pylist(maps_as_pydicts="lossy")
    ref = manifest.ref(0)
    facts = [(name, _in_full(value)) for name, value in row.items() if value is not None]
    empty = [name for name, value in row.items() if value is None]
    print(plain_table(facts))
    if empty:
        print(f"empty: {', '.join(empty)}")
    if not ref.consent:
        print("file: not opened, there is no consent")
        return
    print(f"file: {ref.uri}")
    try:
        info = probe_clip(ref.uri)
    except ClipError as error:
        print(f"      can't be used: {error}")
        return
    sound = "with sound" if info.has_audio else "no sound"
    print(
        f"      {info.width} x {info.height} px, {info.num_frames} frames, {info.fps:.4g} frames/s,"
        f" {info.duration_s:.3f} s, {info.codec} in {info.container}, {sound}"
    )
