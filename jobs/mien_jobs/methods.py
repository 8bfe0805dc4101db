"""The methods that can be run: one explicit table, plus what other packages add.

A third-party package adds a method with an entry point in the group ``mien.methods`` that names a
:class:`MethodEntry`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from mien.infer.package import PackageError, PackageInfo, load_package, restore_method
from mien_jobs import overrides
from mien_jobs.recipe import Recipe
from mien_jobs.recipes import clp, complex_fer, dtm, mma_dfer, rdfer
from mien_jobs.typed_values import nearest
from mien_models.clp import Clp, ClpConfig
from mien_models.complex_fer import ComplexFer, ComplexFerConfig
from mien_models.contract import Method
from mien_models.dtm import Dtm, DtmConfig
from mien_models.mma_dfer import MmaDfer, MmaDferConfig
from mien_models.rdfer import Rdfer, RdferConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """One method: its class, its configuration and its recipes."""

    method: Callable[..., Method]
    """Called with ``(config, classes)``."""
    config: type
    recipe: Callable[[str], Recipe]
    """From profile to run."""
    profiles: tuple[str, ...]
    """The first one is the default."""
    summary: str


METHODS: Mapping[str, MethodEntry] = {
    "clp": MethodEntry(
        method=Clp,
        config=ClpConfig,
        recipe=clp.recipe,
        profiles=tuple(clp.PROFILES),
        summary="action units: pretrained without labels and without identity, then read out",
    ),
    "mma_dfer": MethodEntry(
        method=MmaDfer,
        config=MmaDferConfig,
        recipe=mma_dfer.recipe,
        profiles=tuple(mma_dfer.PROFILES),
        summary="audio-visual: frozen masked autoencoders, progressive prompts, fusion bottlenecks",
    ),
    "dtm": MethodEntry(
        method=Dtm,
        config=DtmConfig,
        recipe=dtm.recipe,
        profiles=tuple(dtm.PROFILES),
        summary="semi-supervised: unlabelled faces, pseudo-labels accepted by moving thresholds",
    ),
    "rdfer": MethodEntry(
        method=Rdfer,
        config=RdferConfig,
        recipe=rdfer.recipe,
        profiles=tuple(rdfer.PROFILES),
        summary="label noise: key re-sampling; agreement tells noisy labels from hard clips",
    ),
    "complex_fer": MethodEntry(
        method=ComplexFer,
        config=ComplexFerConfig,
        recipe=complex_fer.recipe,
        profiles=tuple(complex_fer.PROFILES),
        summary="continual: compound classes learnt one after another, with a replay memory",
    ),
}


def all_methods() -> dict[str, MethodEntry]:
    """Our methods and those of installed packages."""
    added = {point.name: point.load() for point in entry_points(group="mien.methods")}
    return {**added, **METHODS}


def find_method(name: str) -> MethodEntry:
    """The entry of a method.

    Raises:
        ValueError: no such method; names the nearest.
    """
    methods = all_methods()
    if name not in methods:
        near = nearest(name, list(methods))
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(f"there is no method {name!r}; {hint}Known: {', '.join(sorted(methods))}")
    return methods[name]


def make_recipe(name: str, profile: str | None) -> Recipe:
    """A method's run in a profile (None: its default).

    Raises:
        ValueError: no such method or profile.
    """
    entry = find_method(name)
    profile = profile or entry.profiles[0]
    if profile not in entry.profiles:
        raise ValueError(f"{name} has no profile {profile!r}; it has {', '.join(entry.profiles)}")
    return entry.recipe(profile)


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBuilder:
    """Builds a method in whatever process it is sent to."""

    name: str
    config: Any
    classes: tuple[str, ...]

    def __call__(self) -> Method:
        """The method with fresh weights."""
        return find_method(self.name).method(self.config, self.classes)


def load_method(folder: str | Path, *, features_only: bool = False) -> tuple[PackageInfo, Method]:
    """A trained method from its package.

    Args:
        folder: the package.
        features_only: a model will do that was only pretrained, so that its logits mean nothing.

    Raises:
        PackageError: not a package, a damaged one, or one that only has features.
        ValueError: its method or configuration is not known to this installation.
    """
    info, tensors = load_package(folder)
    method = restore_method(build_like(info), info, tensors)
    if method.features_only and not features_only:
        raise PackageError(
            f"{folder} was only pretrained: it has features and tells nothing of a face yet. Train "
            f"a readout on them: mien weights extract {folder} --part trunk --out trunk.safetensors"
            f", then mien train {info.method} --data LABELLED --set config.pretrain=none "
            "config.trunk.given=true weights.trunk=trunk.safetensors"
        )
    return info, method


def build_like(info: PackageInfo) -> Method:
    """A package's method with fresh weights, before its stages are begun.

    Raises:
        PackageError: written with settings that this installation doesn't know.
        ValueError: its method is not known to this installation.
    """
    entry = find_method(info.method)
    try:
        config = cast(
            Any, overrides.from_json(entry.config, json.dumps(info.config), complete=False)
        )
    except overrides.OverrideError as error:
        raise PackageError(
            f"the model was written by Mien {info.mien_version} (commit {info.git_sha}) with other "
            f"settings of {info.method} than this installation knows: {error}. Use that version, "
            "or train the model again."
        ) from error
    return entry.method(config, info.label_set.classes)
