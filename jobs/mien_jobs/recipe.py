"""What a run is: a method, its data, and how it is trained and tracked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mien.cache.images import ImageFormat
from mien.cache.settings import StoredAs
from mien.cluster.groups import ClusterPlan
from mien.media.faces import FaceRule
from mien.train.plan import TrainPlan

PROBES = ("identity", "pose")
"""What `mien probe` and scorecards read from frozen features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataPlan:
    """Which clips, which classes, and who is trained, selected and tested on."""

    manifest: str = ""
    """Path or URI of the manifest (``mien ingest`` and ``mien synth`` write one)."""
    label_set: str = "auto"
    """``auto``: a known set that holds all labels, else the labels sorted by name; or the name of a
    known set (``dfew7``, ``mafw11``, ...)."""
    split_by: Literal["auto", "subject", "columns"] = "auto"
    """``columns``: the manifest's ``split`` column. ``subject``: drawn by person. ``auto``: columns
    where there are any."""
    fold: int | None = None
    """The official fold to test on, where the manifest has a ``fold`` column; the others are
    trained on."""
    licences: tuple[str, ...] = ()
    """Values of the manifest's column ``licence`` that are allowed, such as ``CC-BY-4.0``; none:
    whatever clips have. Clips without consent are left out in any case."""
    val_fraction: float = 0.1
    """Share of the people (``subject``) on whom the best epoch is chosen."""
    test_fraction: float = 0.2
    split_seed: int = 0
    face_rule: FaceRule = "largest"
    """Whose face is followed where a clip shows several; ``given_box``: the one in the manifest's
    ``face_box``."""
    cache: str = ""
    """Folder or URI of a clip cache, which is filled before training starts; empty: every epoch
    decodes anew."""
    cache_format: ImageFormat = "jpeg"
    """``png``: without loss, the same as decoding anew, but larger and slower to read."""
    cache_max_frames: int | None = None
    """Longer clips are cached as this many evenly spaced frames; none: every frame."""

    def __post_init__(self) -> None:
        StoredAs(image_format=self.cache_format, max_frames=self.cache_max_frames)
        for name in ("val_fraction", "test_fraction"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"data.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("data.val_fraction and data.test_fraction leave nobody to train on")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackPlan:
    """Where a run is tracked and under which name its model is registered."""

    uri: str = "auto"
    """MLflow server or ``sqlite:////path/mlflow.db``. ``auto``: MLFLOW_TRACKING_URI where it is
    set, else SQLite in the folder of the runs. ``off``: not tracked."""
    experiment: str = "mien"
    model: str | None = None
    """Registry name; None: the model is not registered."""
    alias: str | None = "champion"
    """Alias that the new version gets where no version has it; one that is taken moves by
    `mien promote` alone. None: none."""
    probes: tuple[str, ...] = ()
    """What the scorecard also probes the features of the test clips for: ``identity``, ``pose``."""

    def __post_init__(self) -> None:
        if unknown := set(self.probes) - set(PROBES):
            raise ValueError(
                f"track.probes: expected {' or '.join(PROBES)}, got {', '.join(sorted(unknown))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole run. Variants are made with ``dataclasses.replace`` or ``--set key=value``."""

    name: str
    """Name of the run; its folder is ``storage/name``. The same name goes on with the same run."""
    method: str
    """Name in the METHODS table."""
    config: Any
    """The method's own configuration."""
    data: DataPlan = field(default_factory=DataPlan)
    train: TrainPlan = field(default_factory=TrainPlan)
    track: TrackPlan = field(default_factory=TrackPlan)
    cluster: ClusterPlan = field(default_factory=ClusterPlan)
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files of ``mien weights import`` for the parts of the network that training takes as given
    (``weights.video_encoder=FILE``); ``random``: untrained, on purpose."""
    storage: str = "runs"
    """Folder or URI below which runs are kept."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise ValueError(
                f"name={self.name!r}: a run's name may hold letters, digits and . _ + - only"
            )
