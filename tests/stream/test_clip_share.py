"""A share of a stream's clips: the same ones every time, smaller ones inside larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.stream.select import select_clips
from mien_models.contract import StreamSpec


def chosen(manifest: Manifest, share: float, **filters) -> set[str]:
    ids = tuple(manifest.column("clip_id"))
    classes = tuple(sorted(set(manifest.column("label"))))
    split = Split(name="all", train=ids, val=(), test=())
    spec = StreamSpec(clip_share=share, **filters)
    clips = select_clips(manifest, split, LabelSet(name="some", classes=classes), spec)
    return {ref.clip_id for ref in clips.refs()}


def test_shares_are_nested_and_of_what_the_other_filters_leave(synth_manifest: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    everything = chosen(manifest, 1.0)
    half, tenth = chosen(manifest, 0.5), chosen(manifest, 0.1)
    assert len(half) == -(-len(everything) // 2)
    assert tenth < half < everything
    assert len(chosen(manifest, 1e-9)) == 1
    label = manifest.column("label")[0]
    of_class = chosen(manifest, 1.0, labels=(label,))
    assert len(chosen(manifest, 0.5, labels=(label,))) == -(-len(of_class) // 2)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="clip_share"):
        StreamSpec(clip_share=share)
