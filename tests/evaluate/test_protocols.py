"""Protocols agree with the readers of their data sets, and say what differs."""

from __future__ import annotations

import pytest

from mien.clips.labels import KNOWN_LABEL_SETS
from mien.clips.manifest import Manifest
from mien.clips.readers.registry import READERS
from mien.evaluate.protocols import DFEW, PROTOCOLS, RAFDB


def test_every_protocol_can_be_had() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.data in READERS, name
        assert (protocol.label_set is None) == (protocol.scores == ("au_f1",))
        assert protocol.label_set is None or protocol.label_set in KNOWN_LABEL_SETS
        assert set(protocol.test_sizes) <= set(range(protocol.num_folds + 1))
        for row in protocol.published:
            assert row.source
            assert set(row.scores) & set(protocol.scores)
            assert all(1 < score < 100 for score in row.scores.values()), "per cent"


def test_published_sizes_add_up() -> None:
    assert sum(DFEW.test_sizes.values()) == 11_697


def manifest(**columns: list[object]) -> Manifest:
    size = len(next(iter(columns.values())))
    return Manifest.from_rows(
        [
            {"clip_id": str(i), "uri": str(i), **{k: v[i] for k, v in columns.items()}}
            for i in range(size)
        ]
    )


def test_folds_are_the_official_ones() -> None:
    assert DFEW.folds_of(manifest(fold=[1, 2, 3, 4, 5, 5])) == (1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="folds 1 to 5, the manifest has 1, 2; make it with"):
        DFEW.folds_of(manifest(fold=[1, 2]))
    assert RAFDB.folds_of(manifest(split=["train", "test"])) == (None,)
    with pytest.raises(ValueError, match="lacks train or test"):
        RAFDB.folds_of(manifest(split=["train", None]))


def test_missing_clips_are_a_deviation() -> None:
    found = DFEW.deviations({1: 2341, 2: 2000})
    assert "fold 2 has 2000 test clips, published are 2341." in found
    assert not any("fold 1" in line for line in found)
    assert any("chooses the epoch" in line for line in found)
