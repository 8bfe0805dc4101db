"""Packages without the parts that others trained: small, and free of those parts' licences.

A slim package holds what a training changed; whoever has the same part files puts them back and
has the whole package again, to the last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from mien.infer.package import (
    PackageError,
    PackageInfo,
    begin_stages,
    load_package,
    load_slim,
    save_package,
)
from mien.weights.part_file import read_part
from mien.weights.torch_file import WeightsError
from mien_jobs.methods import build_like
from mien_models.contract import Method

Parts = Mapping[str, str]
"""Location of the file of each part."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slimmed:
    """What became of a package."""

    kept: int
    """Tensors that the slim package holds."""
    left_out: int
    num_bytes: int
    """Of the slim package's tensors."""


def slim(package: Path, given: Parts, out: Path) -> Slimmed:
    """Writes a package without the tensors that are the given parts', to the last bit.

    Args:
        package: a whole one, trained on given parts.
        given: where the parts' files are now; the recipe's places for those not named.
        out: the folder to write.

    Raises:
        PackageError: the package was trained on no given parts.
        WeightsError: a file is missing, or not the one that the training was given.
    """
    info, tensors = load_package(package)
    if not info.pretrained:
        raise PackageError(f"{package} was trained on no given weights: nothing can be left out")
    reference = _with_parts(info, _places(info, given)).state_dict()
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not (tensor.is_floating_point() and torch.equal(tensor, reference[name]))
    }
    whole = dataclasses.replace(
        info, left_out=dict(info.pretrained), whole_sha256=info.weights_sha256
    )
    save_package(out, whole, kept)
    size = sum(tensor.nbytes for tensor in kept.values())
    return Slimmed(kept=len(kept), left_out=len(tensors) - len(kept), num_bytes=size)


def complete(package: Path, given: Parts, out: Path) -> PackageInfo:
    """Writes the whole package that a slim one was made of.

    Raises:
        PackageError: not a slim package, or the result is not what it was made of.
        WeightsError: a file is missing, or not the one that the training was given.
    """
    info, kept = load_slim(package)
    tensors = _with_parts(info, _places(info, given)).state_dict() | kept
    whole = dataclasses.replace(info, left_out={}, whole_sha256="")
    try:
        save_package(out, whole, tensors, expected_sha256=info.whole_sha256)
    except PackageError as error:
        raise PackageError(
            f"{package}: {error}; it was written by Mien {info.mien_version}"
        ) from error
    return whole


def _with_parts(info: PackageInfo, places: Parts) -> Method:
    """The package's network, not a number but for what the given parts set."""
    method = build_like(info)
    begin_stages(method, info)
    for tensor in method.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    for part, place in places.items():
        found, expected = read_part(place), info.pretrained[part]["sha256"]
        if found.sha256 != expected:
            raise WeightsError(
                f"{place} is not the {part} that this model was trained on: SHA-256 "
                f"{found.sha256[:12]}..., expected {expected[:12]}..."
            )
        method.load_pretrained(part, found.tensors)
    return method


def _places(info: PackageInfo, given: Parts) -> dict[str, str]:
    if unknown := sorted(set(given) - set(info.pretrained)):
        raise WeightsError(
            f"--with {unknown[0]}=...: this model was trained on {', '.join(info.pretrained)}"
        )
    recorded = info.recipe.get("weights") or {}
    places = {part: given.get(part) or recorded.get(part) for part in info.pretrained}
    if missing := [part for part, place in places.items() if not place]:
        raise WeightsError(f"say where the weights are: --with {missing[0]}=FILE")
    return {part: str(place) for part, place in places.items()}
