"""``mien weights``: published weights, read without running their code, checked, made ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions: import, extract, show, slim, complete."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    bring = actions.add_parser("import", help="check a published checkpoint and make it ours")
    bring.add_argument("file", type=Path, help="a .pth, .pt, .bin or .safetensors file")
    bring.add_argument(
        "--as",
        dest="kind",
        required=True,
        metavar="KIND",
        help="what it is: mae_face, audiomae, mae (encoders), timm:NAME (a trunk, as in "
        "timm:resnet50) or mma_dfer (a whole trained model)",
    )
    bring.add_argument(
        "--out",
        required=True,
        help="an encoder: the .safetensors file to write; a model: the package folder to write",
    )
    take = actions.add_parser(
        "extract", help="a part of our own model, for trainings to start from"
    )
    take.add_argument("package", type=Path, help="the package folder")
    take.add_argument("--part", required=True, help="trunk, of a clp: what makes its features")
    take.add_argument("--out", required=True, help="the .safetensors file to write")
    show = actions.add_parser("show", help="what is in a file, and what it could be imported as")
    show.add_argument("file", type=Path)
    _add_package_action(
        actions, "slim", "a copy of a model package without the weights that its training was given"
    )
    _add_package_action(actions, "complete", "put those weights back into a slim package")


def _add_package_action(actions: Any, name: str, what: str) -> None:
    action = actions.add_parser(name, help=what)
    action.add_argument("package", type=Path, help="the package folder")
    action.add_argument(
        "--with",
        dest="parts",
        nargs="+",
        default=[],
        metavar="PART=FILE",
        help="where the given weights are now (default: where they were when it was trained)",
    )
    action.add_argument("--out", required=True, type=Path, help="the package folder to write")


def run(args: argparse.Namespace) -> int:
    """Imports or describes a file."""
    from mien_jobs.pretrained import describe_file

    if args.action == "show":
        print("\n".join(describe_file(args.file)))
        return 0
    if args.action in ("slim", "complete"):
        return _slim_or_complete(args)
    if args.action == "extract":
        return _extract(args.package, args.part, args.out)
    return _import(args.file, args.kind, args.out)


def _extract(package: Path, part: str, out: str) -> int:
    from mien_jobs.pretrained import extract_part

    _check_name(out)
    method, digest = extract_part(package, part, out)
    print(f"wrote {out} (SHA-256 {digest[:12]}...): the {part} of {package}")
    print(
        f"train with it: mien train {method} --data MANIFEST --set config.pretrain=none "
        f"config.{part}.given=true weights.{part}={out}"
    )
    return 0


def _check_name(out: str) -> None:
    if not out.endswith(".safetensors"):
        raise ValueError(f"--out {out}: the file of a network's part ends in .safetensors")


def _slim_or_complete(args: argparse.Namespace) -> int:
    from mien_jobs.slim import complete, slim

    if wrong := [text for text in args.parts if "=" not in text]:
        raise ValueError(f"--with {wrong[0]}: expected PART=FILE, as in video_encoder=FILE")
    parts = dict(text.split("=", 1) for text in args.parts)
    if args.action == "complete":
        info = complete(args.package, parts, args.out)
        print(f"wrote {args.out}: {info.method}, whole again, the same to the last bit")
        return 0
    found = slim(args.package, parts, args.out)
    print(
        f"wrote {args.out}: {found.kept} tensors, {found.num_bytes / 1e6:.1f} MB; "
        f"{found.left_out} left out, which the given weights hold"
    )
    return 0


def _import(file: Path, kind: str, out: str) -> int:
    from mien_jobs.pretrained import (
        ENCODERS,
        KINDS,
        MMA_DFER,
        TIMM,
        import_encoder,
        import_method,
        import_trunk,
    )
    from mien_jobs.typed_values import nearest

    if kind == MMA_DFER:
        info = import_method(file, Path(out))
        print(f"wrote {out}: MMA-DFER for {len(info.label_set.classes)} classes")
        print(f"  {', '.join(info.label_set.classes)}")
        print(f"predict a face clip: mien predict VIDEO --model {out}")
        return 0
    if kind not in ENCODERS and not kind.startswith(TIMM):
        near = nearest(kind, list(KINDS))
        hint = f"did you mean {near}? " if near else ""
        known = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
        raise ValueError(f"--as {kind}: {hint}Known are {known}")
    _check_name(out)
    if kind.startswith(TIMM):
        name = kind.removeprefix(TIMM)
        digest = import_trunk(file, name, out)
        print(f"wrote {out} (SHA-256 {digest[:12]}...): the trunk of timm's {name}")
        print(
            f"train with it: mien train METHOD --set config.trunk.name={name} weights.trunk={out}"
        )
        return 0
    digest = import_encoder(file, kind, out)
    encoder = ENCODERS[kind]
    print(f"wrote {out} (SHA-256 {digest[:12]}...), licence of the weights: {encoder.licence}")
    print(f"train with it: mien train mma_dfer --data MANIFEST --set weights.{encoder.part}={out}")
    return 0
