"""``mien ingest SOURCE``: a manifest of your own videos, or of a published data set."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.clips.ingest import IngestReport
    from mien.clips.labels import LabelSet

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the videos are, and what is known of them."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "published data sets (with --root):\n" + _listing()
    parser.add_argument(
        "source",
        nargs="*",
        help="a folder with one folder per class (CLASS/.../VIDEO.mp4, CLASS/.../CLIP/FRAME.jpg), "
        "a table (.csv, .tsv) with a column path (and label, subject, start_s, end_s, split, fold, "
        "consent, ... where you have them), lists (.txt) of `path num_frames class`, or the name "
        "of a published data set",
    )
    parser.add_argument("--list", action="store_true", help="show the published data sets")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the manifest to write, path or URI (default: manifest.parquet in the folder, or "
        "beside the table; NAME.parquet in a published data set's root)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that is there")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where a published data set lies, path or URI; what the paths of tables and lists are "
        "relative to (default: their place)",
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
        "others are left out (default: every class that is found). For lists with numbers: the "
        "classes in the order of the numbers, from 0",
    )
    parser.add_argument("--encoding", default="utf-8", help="a table's encoding (default: utf-8)")
    parser.add_argument(
        "--threads", type=int, default=4, metavar="N", help="files opened at a time (default: 4)"
    )
    parser.add_argument(
        "--no-probe",
        action="store_true",
        help="published data sets: look only whether the files are there, do not open them",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="FRAMES",
        help="published data sets with action units of each frame: rows of so many consecutive "
        "frames (default: one row a recording)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes manifest and list of what was left out; 1 if nothing was kept."""
    from mien.media import storage

    if args.list:
        print(_listing())
        return 0
    read, place, name = _reader(args)
    out = args.out or storage.join(place, name)
    if not out.endswith(".parquet"):
        raise ValueError(f"--out {out}: a manifest's name ends in .parquet")
    if not args.overwrite and storage.exists(out):
        raise ValueError(f"{out} is there already; give --out another name, or --overwrite")
    report = _ingest(args, read)
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


_Read = partial["IngestReport"]


def _listing() -> str:
    from mien.clips.readers.registry import READERS

    return "\n".join(f"  {name:<15}{reader.summary}" for name, reader in READERS.items())


def _reader(args: argparse.Namespace) -> tuple[_Read, str, str]:
    """What reads the source, where its manifest goes, and what that is called.

    Raises:
        ValueError: options that do not go with the source.
    """
    from mien.clips.readers.registry import READERS

    if not args.source:
        raise ValueError(
            "name a folder, a table or a published data set: mien ingest FOLDER, or mien ingest "
            "dfew --root FOLDER; mien ingest --list shows the data sets"
        )
    source = args.source[0]
    if source in READERS:
        return _dataset_reader(args, source)
    _refuse(args, no_probe="for published data sets", window="for published data sets")
    if all(_is_list(each) for each in args.source):
        return _list_reader(args)
    if len(args.source) > 1:
        raise ValueError(f"{' '.join(args.source)}: only lists (.txt) may be several")
    if _is_table(source):
        return _table_reader(args, source)
    return _folder_reader(args, source)


def _dataset_reader(args: argparse.Namespace, name: str) -> tuple[_Read, str, str]:
    from mien.clips.ingest_dataset import ingest_dataset
    from mien.media import storage

    _refuse(args, subject_regex="for folders; data sets say who is seen, or do not")
    _refuse_encoding(args)
    if len(args.source) > 1 or not args.root:
        raise ValueError(
            f"mien ingest {name} needs --root FOLDER, where the data set lies (a folder of your "
            f"own of that name is ./{name})"
        )
    options = {"window_frames": args.window, "probe": not args.no_probe}
    read = partial(ingest_dataset, name, args.root, **options)
    return read, storage.absolute(args.root), f"{name}.parquet"


def _list_reader(args: argparse.Namespace) -> tuple[_Read, str, str]:
    from mien.clips.ingest_list import ingest_lists

    _refuse(args, subject_regex="for folders; lists do not name people")
    _refuse_encoding(args)
    return partial(ingest_lists, args.source, args.root), _place_of(args.source[0]), _FILE


def _table_reader(args: argparse.Namespace, source: str) -> tuple[_Read, str, str]:
    from mien.clips.ingest import ingest_csv

    _refuse(args, subject_regex="for folders; a table names people in its column subject")
    encoding = "utf-8-sig" if args.encoding.lower() in ("utf-8", "utf8") else args.encoding
    return partial(ingest_csv, source, args.root, encoding=encoding), _place_of(source), _FILE


def _folder_reader(args: argparse.Namespace, source: str) -> tuple[_Read, str, str]:
    from mien.clips.ingest import ingest_folders
    from mien.clips.readers.registry import READERS
    from mien.media import storage
    from mien_jobs.typed_values import nearest

    near = nearest(source, READERS)
    if args.root:
        hint = f"; did you mean the data set {near}?" if near else ""
        raise ValueError(
            f"--root is for tables, lists and published data sets; a folder is its own root{hint}"
        )
    if near and not storage.is_folder(source):
        raise ValueError(
            f"there is no folder {source}; did you mean the published data set {near}: mien ingest "
            f"{near} --root FOLDER?"
        )
    read = partial(ingest_folders, source, subject_regex=args.subject_regex)
    return read, _place_of(source), _FILE


_FILE = "manifest.parquet"


def _refuse(args: argparse.Namespace, **options: str) -> None:
    for name, what in options.items():
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} is {what}")


def _refuse_encoding(args: argparse.Namespace) -> None:
    if args.encoding != "utf-8":
        raise ValueError("--encoding is for tables; the encoding of lists is found out")


def _ingest(args: argparse.Namespace, read: _Read) -> IngestReport:
    from mien_jobs.progress import ProgressBar

    if args.threads < 1:
        raise ValueError(f"--threads {args.threads}: at least one has to open files")
    label_set = parse_labels(args.labels) if args.labels else None
    with ProgressBar("files") as progress:
        return read(label_set=label_set, num_threads=args.threads, progress=progress)


def _write(report: IngestReport, out: str) -> None:
    from mien.clips.ingest import quarantine_uri

    written = report.write(out)
    print(f"wrote {out}: {len(written)} clips")
    print(f"wrote {quarantine_uri(out)}: {len(report.quarantined)} left out")
    if written.labels and set(written.column("num_frames")) != {1}:
        folds = sorted({fold for fold in written.column("fold") if fold is not None})
        fold = f" --set data.fold={folds[-1]}" if folds and not any(written.column("split")) else ""
        print(f"train on it: mien train mma_dfer --profile tiny --data {shlex.quote(out)}{fold}")


def _is_table(source: str) -> bool:
    return source.lower().endswith(TABLE_SUFFIXES)


def _is_list(source: str) -> bool:
    from mien.clips.ingest_list import is_list
    from mien.media import storage

    return source.lower().endswith(".txt") and storage.exists(source) and is_list(source)


def _place_of(source: str) -> str:
    from mien.media import storage

    location = storage.absolute(source)
    return storage.parent(location) if _is_table(source) else location
