"""Pairs of clips that show the same video, among very many: no clip is compared with all others.

Signs of the 256 strongest frequencies of a fingerprint are a binary code, cut into 16 bands of 16
bits. Copies agree in whole bands but for bits whose values are near zero; so a clip is looked up in
each band's table under its own key and the 15 that come of flipping its 4 weakest bits there, once
as it is and once mirrored. Candidates are checked by Hamming distance, then by cosine.
(Multi-index hashing: Norouzi et al., CVPR 2012; multi-probe: Lv et al., VLDB 2007.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mien.clips.inspect.fingerprint import MOTION_SHAPE, PICTURE_SHAPE, Vector, mirror_signs

CODE_BITS, BAND_BITS, WEAK_BITS = 256, 16, 4
MAX_HAMMING = 96
"""Of 256 bits; unrelated clips differ in about 128, and cosine decides in the end."""
MIN_MOTION_COSINE = 0.66
MIN_PICTURE_COSINE = 0.6
"""Of moving clips' mean pictures; only rules out that two faces move alike."""
MIN_STILL_COSINE = 0.985
"""Stills have nothing but their picture, and that is alike for one person in one studio."""
STILL_MOVEMENT = 0.01
BUCKET_LIMIT = 200
"""Clips under one key that are looked at: alike as they are, they are linked through these."""
_QUERIES_AT_ONCE = 4096
_PAIRS_AT_ONCE = 1 << 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Looks:
    """Fingerprints of N clips."""

    picture: Vector
    """[N, 256]"""
    motion: Vector
    """[N, 448]"""
    movement: npt.NDArray[np.float32]
    """[N]"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs of clips that look the same, each once."""

    first: Ints
    second: Ints
    cosine: npt.NDArray[np.float32]


def find_same_looks(looks: Looks) -> Pairs:
    """Pairs of clips whose videos are the same but for encoding, brightness, size or mirroring.

    Clips that are cut differently, or whose picture is cropped by more than a tenth, are not found.
    """
    moving = np.flatnonzero(looks.movement > STILL_MOVEMENT)
    still = np.flatnonzero(looks.movement <= 2 * STILL_MOVEMENT)
    found = [
        _moving_pairs(looks, moving),
        _still_pairs(looks, still),
    ]
    first, second, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    _, unique = np.unique(first * len(looks.movement) + second, return_index=True)
    return Pairs(first=first[unique], second=second[unique], cosine=cosine[unique])


def _moving_pairs(looks: Looks, clips: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    signs = mirror_signs(MOTION_SHAPE)
    pairs = _similar(looks.motion[clips], signs, _low_frequencies_first(), MIN_MOTION_COSINE)
    first, second, cosine = pairs
    first, second = clips[first], clips[second]
    picture = _cosine_or_mirrored(looks.picture, first, second, mirror_signs(PICTURE_SHAPE))
    keep = picture >= MIN_PICTURE_COSINE
    return first[keep], second[keep], cosine[keep]


def _still_pairs(looks: Looks, clips: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    signs = mirror_signs(PICTURE_SHAPE)
    order = np.arange(CODE_BITS)
    first, second, cosine = _similar(looks.picture[clips], signs, order, MIN_STILL_COSINE)
    first, second = clips[first], clips[second]
    keep = np.minimum(looks.movement[first], looks.movement[second]) <= STILL_MOVEMENT
    return first[keep], second[keep], cosine[keep]


def _low_frequencies_first() -> Ints:
    """Places of the 256 lowest frequencies of the motion part, the most stable ones first."""
    times, rows, columns = np.indices(MOTION_SHAPE)
    strongest = np.flatnonzero(times.reshape(-1) < CODE_BITS // (MOTION_SHAPE[1] * MOTION_SHAPE[2]))
    total = (times + rows + columns).reshape(-1)[strongest]
    return strongest[np.argsort(total, kind="stable")]


def _similar(
    vectors: Vector, signs: Vector, order: Ints, min_cosine: float
) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """Pairs (i < j) of rows whose cosine, or that with one of them mirrored, is high enough."""
    index = _BandIndex(vectors[:, order])
    found: list[tuple[Ints, Ints, npt.NDArray[np.float32]]] = []
    for start in range(0, len(vectors), _QUERIES_AT_ONCE):
        rows = np.arange(start, min(start + _QUERIES_AT_ONCE, len(vectors)))
        for mirror in (False, True):
            queries = vectors[rows] * signs if mirror else vectors[rows]
            query, second = index.candidates(rows, queries[:, order])
            cosine = _cosine(queries, vectors, query, second)
            keep = cosine >= min_cosine
            found.append((rows[query[keep]], second[keep], cosine[keep]))
    if not found:
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing, np.empty(0, dtype=np.float32)
    first, second, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.minimum(first, second), np.maximum(first, second), cosine


class _BandIndex:
    """Tables from the key of a band to the rows that have it."""

    def __init__(self, values: Vector) -> None:
        self._words = _words(values)
        self._tables = []
        for band in range(CODE_BITS // BAND_BITS):
            keys = _keys(values[:, band * BAND_BITS : (band + 1) * BAND_BITS])
            order = np.argsort(keys, kind="stable")
            self._tables.append((keys[order], order))

    def candidates(self, rows: Ints, queries: Vector) -> tuple[Ints, Ints]:
        """Pairs of a query and a row within `MAX_HAMMING`, each once; not of a row with itself."""
        words = _words(queries)
        pairs: list[Ints] = []
        for band, (keys, order) in enumerate(self._tables):
            probes = _probes(queries[:, band * BAND_BITS : (band + 1) * BAND_BITS])
            starts = np.searchsorted(keys, probes, side="left")
            counts = np.searchsorted(keys, probes, side="right") - starts
            counts = np.minimum(counts, BUCKET_LIMIT)
            for block in _blocks(counts.sum(axis=1)):
                query, place = _expanded(starts[block], counts[block])
                query += block.start
                other = order[place]
                distance = np.bitwise_count(words[query] ^ self._words[other]).sum(axis=1)
                keep = (distance <= MAX_HAMMING) & (other != rows[query])
                pairs.append(query[keep] * len(self._words) + other[keep])
                if sum(map(len, pairs)) > _PAIRS_AT_ONCE:
                    pairs = [np.unique(np.concatenate(pairs))]
        query, other = np.divmod(np.unique(np.concatenate(pairs)), len(self._words))
        return query, other


def _words(values: Vector) -> npt.NDArray[np.uint64]:
    """[N, 4] the signs as bits."""
    packed = np.packbits(values > 0, axis=1)
    return np.ascontiguousarray(packed).view(np.uint64)


def _keys(band: Vector) -> Ints:
    return (band > 0).astype(np.int64) @ (1 << np.arange(BAND_BITS, dtype=np.int64))


def _probes(band: Vector) -> Ints:
    """[N, 16] the key of each row, and those with its weakest bits flipped."""
    weakness = np.argsort(np.abs(band.astype(np.int16)), axis=1, kind="stable")[:, :WEAK_BITS]
    weak = 1 << weakness.astype(np.int64)
    chosen = (np.arange(1 << WEAK_BITS)[:, None] >> np.arange(WEAK_BITS)) & 1
    return np.asarray(_keys(band)[:, None] ^ (weak @ chosen.T), dtype=np.int64)


def _blocks(sizes: Ints) -> Iterator[slice]:
    """Slices of queries with about `_PAIRS_AT_ONCE` candidates each."""
    number = np.cumsum(sizes) // _PAIRS_AT_ONCE
    edges = np.flatnonzero(np.diff(number)) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(sizes)], strict=True):
        yield slice(start, stop)


def _expanded(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The query and the place of every candidate, from [Q, 16] ranges of places."""
    queries = np.repeat(np.arange(len(starts)), counts.sum(axis=1))
    flat_counts = counts.reshape(-1)
    before = np.cumsum(flat_counts) - flat_counts
    inside = np.arange(len(queries)) - np.repeat(before, flat_counts)
    return queries, np.repeat(starts.reshape(-1), flat_counts) + inside


def _cosine(queries: Vector, vectors: Vector, query: Ints, row: Ints) -> npt.NDArray[np.float32]:
    cosines = np.empty(len(query), dtype=np.float32)
    for start in range(0, len(query), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        one = queries[query[part]].astype(np.float32)
        other = vectors[row[part]].astype(np.float32)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines[part] = np.einsum("nd,nd->n", one, other) / np.maximum(lengths, 1e-6)
    return cosines


def _cosine_or_mirrored(
    vectors: Vector, first: Ints, second: Ints, signs: Vector
) -> npt.NDArray[np.float32]:
    """The cosine of rows, with one of them mirrored where that is higher."""
    straight = _cosine(vectors, vectors, first, second)
    mirrored = np.empty_like(straight)
    for start in range(0, len(first), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        flipped = vectors[first[part]] * signs
        mirrored[part] = _cosine(flipped, vectors, np.arange(len(flipped)), second[part])
    return np.maximum(straight, mirrored)
