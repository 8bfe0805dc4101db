"""``mien ingest SOURCE``: a manifest of your own folder or table of videos."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.clips.ingest import IngestReport
    from mien.clips.labels import LabelSet

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the videos are, and what is known of them."""
    parser.add_argument(
        "source",
        help="a folder with one folder per class (CLASS/.../VIDEO.mp4 or CLASS/.../CLIP/FRAME.jpg) "
        "or a table (.csv, .tsv) with a column path, and label, subject, start_s, end_s, split, "
        "fold, consent, ... where you have them",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the manifest to write, path or URI (default: manifest.parquet in the folder, or "
        "beside the table)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that is there")
    parser.add_argument(
        "--root", metavar="FOLDER", help="what a table's paths are relative to (default: its place)"
    )
    parser.add_argument(
        "--subject-regex",
        metavar="REGEX",
        help="finds the person in a path below the class's folder, as in '([a-z]+)_'; people never "
        "cross the splits, so give it if you can (a table has a column subject)",
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="classes that are allowed: the name of a label set (dfew7, ...) or a,b,c; clips of "
        "others are left out (default: every class that is found)",
    )
    parser.add_argument("--encoding", default="utf-8", help="a table's encoding (default: utf-8)")
    parser.add_argument(
        "--threads", type=int, default=4, metavar="N", help="files opened at a time (default: 4)"
    )


def run(args: argparse.Namespace) -> int:
    """Opens every file, writes manifest and list of what was left out; 1 if nothing was kept."""
    from mien.media import storage

    out = args.out or storage.join(_place_of(args.source), "manifest.parquet")
    if not out.endswith(".parquet"):
        raise ValueError(f"--out {out}: a manifest's name ends in .parquet")
    if not args.overwrite and _exists(out):
        raise ValueError(f"{out} is there already; give --out another name, or --overwrite")
    report = _ingest(args)
    print(report.summary())
    for rejected in report.quarantined[:_SHOWN]:
        print(f"  left out {rejected.path}: {rejected.reason}: {rejected.message}")
    if len(report.quarantined) > _SHOWN:
        print(f"  ... and {len(report.quarantined) - _SHOWN} more")
    if len(report.manifest) == 0:
        print("no clip can be used; nothing was written")
        return 1
    _write(report, out)
    return 0


def parse_labels(text: str) -> LabelSet:
    """A built-in label set by name, or one of the classes that are listed.

    Raises:
        ValueError: neither a known name nor a list; the classes don't make a label set.
    """
    from mien.clips.labels import KNOWN_LABEL_SETS, LabelSet
    from mien_jobs.typed_values import nearest

    if text in KNOWN_LABEL_SETS:
        return KNOWN_LABEL_SETS[text]
    classes = tuple(name.strip() for name in text.split(","))
    if len(classes) == 1:
        near = nearest(text, KNOWN_LABEL_SETS)
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(
            f"--labels {text}: no label set of that name; {hint}Known: "
            f"{', '.join(sorted(KNOWN_LABEL_SETS))}; or list the classes: --labels a,b,c"
        )
    return LabelSet(name="custom", classes=classes)


def _ingest(args: argparse.Namespace) -> IngestReport:
    from mien.clips.ingest import ingest_csv, ingest_folders
    from mien_jobs.progress import ProgressBar

    if args.threads < 1:
        raise ValueError(f"--threads {args.threads}: at least one has to open files")
    label_set = parse_labels(args.labels) if args.labels else None
    if _is_table(args.source):
        if args.subject_regex:
            raise ValueError(
                "--subject-regex is for folders; a table names people in its column subject"
            )
        encoding = "utf-8-sig" if args.encoding.lower() in ("utf-8", "utf8") else args.encoding
        read = partial(ingest_csv, args.source, args.root, encoding=encoding)
    else:
        if args.root:
            raise ValueError("--root is for tables; a folder is its own root")
        read = partial(ingest_folders, args.source, subject_regex=args.subject_regex)
    with ProgressBar("files") as progress:
        return read(label_set=label_set, num_threads=args.threads, progress=progress)


def _write(report: IngestReport, out: str) -> None:
    from mien.clips.ingest import quarantine_uri

    written = report.write(out)
    print(f"wrote {out}: {len(written)} clips")
    print(f"wrote {quarantine_uri(out)}: {len(report.quarantined)} left out")
    print(f"train on it: mien train mma_dfer --profile tiny --data {out}")


def _is_table(source: str) -> bool:
    return source.lower().endswith(TABLE_SUFFIXES)


def _place_of(source: str) -> str:
    from mien.media import storage

    location = storage.absolute(source)
    return storage.parent(location) if _is_table(source) else location


def _exists(location: str) -> bool:
    from mien.media import storage

    return storage.exists(location)
