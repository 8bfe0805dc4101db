"""What a reader is, and what it makes of a data set's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mien.clips.ingest_table import Rejected
from mien.clips.labels import LabelSet
from mien.clips.schema import ManifestError

if TYPE_CHECKING:
    from mien.clips.readers.tree import Tree

BY_AGREEMENT = "by-agreement"
"""Licence of what the owners give out for research to those who sign their agreement."""


class DatasetError(ManifestError):
    """A data set's folder that lacks what its reader needs, or holds what it should not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a data set whose size was published: which rows belong to it, and how many."""

    name: str
    published: int | Mapping[str, int] | None = None
    """How many, or how many of each label; None: no figure is known."""
    split: str | None = None
    """Rows of this value of the column `split`."""
    test_fold: int | None = None
    """Rows of this fold."""
    train_fold: int | None = None
    """Rows of all folds but this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reader found. No media was opened."""

    table: pa.Table
    """Rows with at least clip_id and uri (absolute); further columns as `Manifest` takes them."""
    parts: Sequence[Part]
    unit: str = "clips"
    """What the published sizes count: clips, pictures or frames (the sum of num_frames)."""
    rejected: Sequence[Rejected] = ()
    notes: Sequence[str] = ()
    """What the user should know, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may choose of how a data set is read."""

    window_frames: int | None = None
    """Of sets with labels of each frame: rows of so many consecutive frames. None: one row a
    recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A published data set and how it is read."""

    name: str
    """What `mien ingest` calls it."""
    title: str
    summary: str
    """One line for the help."""
    owner: str
    """Whom to ask for the data."""
    layout: str
    """The paths that are looked for, in short."""
    licence: str
    """Goes into the column `licence`."""
    label_set: LabelSet | None
    """Classes in their published order; None where there are none, or only the data tells."""
    read: Callable[[Tree, Options], Reading]
    takes_window: bool = False
    """Whether `Options.window_frames` means anything here."""
