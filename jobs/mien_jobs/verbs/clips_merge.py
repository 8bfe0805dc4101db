"""``mien clips merge MANIFEST MANIFEST ...``: several manifests as one."""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifests, and where the new one goes."""
    parser.add_argument(
        "manifests",
        nargs="+",
        metavar="[NAME=]MANIFEST",
        help="manifest files or folders, paths or URIs; NAME is put in front of clip ids, people "
        "and sources (default: the file's name, or its folder's)",
    )
    parser.add_argument(
        "--same-people",
        action="store_true",
        help="leave names as they are: equal names of people and films mean the same ones",
    )
    parser.add_argument(
        "--out",
        default="merged.parquet",
        metavar="FILE",
        help="the new manifest (default: %(default)s); the old ones stay as they are",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the new manifest and says what is in it."""
    from mien.clips.manifest import Manifest
    from mien.clips.union import DATA_SET, united
    from mien.media.storage import absolute

    if not args.out.endswith(".parquet"):
        raise ValueError(f"--out {args.out}: the manifest's name ends in .parquet")
    found: dict[str, Manifest] = {}
    for given in args.manifests:
        name, place = named(given)
        if name in found:
            raise ValueError(
                f"two manifests are called {name!r}: name them, as in rafdb={place} (the name "
                "goes in front of their clips' ids)"
            )
        found[name] = Manifest.read(place)
    merged = united(found, same_people=args.same_people)
    merged.write(absolute(args.out))
    for name, manifest in found.items():
        unlabelled = manifest.table["label"].null_count
        print(
            f"{name}: {len(manifest)} clips, {len(manifest.subjects)} people, "
            f"{len(manifest.labels)} classes, {unlabelled} unlabelled"
        )
    print(f"wrote {args.out}: {len(merged)} clips, classes {', '.join(merged.labels) or 'none'}")
    print(f"which set a clip is from is in the column {DATA_SET}")
    return 0


def named(given: str) -> tuple[str, str]:
    """Name and place of ``[NAME=]MANIFEST``.

    >>> named("faces/rafdb.parquet"), named("vox=s3://b/vox"), named("mafw/manifest.parquet")
    (('rafdb', 'faces/rafdb.parquet'), ('vox', 's3://b/vox'), ('mafw', 'mafw/manifest.parquet'))
    """
    name, is_given, place = given.partition("=")
    if is_given and "/" not in name:
        return name, place
    path = PurePosixPath(given.partition("://")[2] or given)
    return (path.parent.name if path.stem == "manifest" else path.stem) or "manifest", given
