"""One clip's file, opened and looked at: what is wrong with it, its hash and its fingerprint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mien.clips.inspect.findings import Finding
from mien.clips.inspect.fingerprint import NUM_FRAMES, Fingerprint, fingerprint
from mien.clips.manifest import ClipRef
from mien.media.containers import clip_errors
from mien.media.decode import DecodedClip, decode_clip
from mien.media.errors import ClipError
from mien.media.faces import FaceDetector
from mien.media.sampling import uniform_segments
from mien.media.storage import explained, file_system

SILENT_PEAK = 1e-3
"""Largest sample, of 1, of a track that is called silent: -60 dB."""
FACE_FRAMES = (4, 1, 6)
"""Which of a clip's `NUM_FRAMES` frames are searched for a face first; then the others."""
MAX_SIDE_PX = 320
"""Frames are shrunk to this long side, as the face detector would do."""
WINDOW_S = 30.0
"""A full decode goes through a clip in pieces of this length, so that memory stays bounded."""
_WINDOW_SIDE_PX = 32
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ClipToExamine:
    """A clip, and what its row claims."""

    ref: ClipRef
    has_audio: bool | None
    """What the manifest's column `has_audio` says; None where it says nothing."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of looking at a clip."""

    findings: tuple[Finding, ...]
    digest: str | None
    """SHA-256 of the bytes of the file, or of the folder's pictures; None if it can't be read."""
    looks: Fingerprint | None
    """None if it can't be decoded."""


def examine_clip(clip: ClipToExamine, *, decode_all: bool) -> Examined:
    """Opens a clip, decodes `NUM_FRAMES` frames and its sound, and looks for a face.

    Args:
        clip: what to look at.
        decode_all: decode every frame too, so that no damage goes unseen.
    """
    ref = clip.ref
    try:
        digest = media_digest(ref.uri)
        decoded = decode_clip(
            ref.uri,
            choose_frames=lambda number: uniform_segments(number, NUM_FRAMES).tolist(),
            start_s=ref.start_s,
            end_s=ref.end_s,
            audio_uri=ref.audio_uri,
            max_side_px=MAX_SIDE_PX,
        )
        refused = decoded.refused_packets
        if decode_all:
            refused = max(refused, _refused_in_all(ref, decoded))
    except ClipError as error:
        return Examined((Finding.of(ref, error.reason, str(error)),), None, None)
    looks = fingerprint(decoded.frames_THWC)
    findings = [*_count_findings(ref, decoded, refused), *_sound_findings(clip, decoded)]
    if looks.is_blank:
        findings.append(Finding.of(ref, "blank_picture", "its frames show one even colour"))
    elif not _has_face(decoded):
        findings.append(Finding.of(ref, "no_face", f"none in {NUM_FRAMES} frames of it"))
    return Examined(tuple(findings), digest, looks)


@lru_cache(maxsize=256)
def media_digest(uri: str) -> str:
    """SHA-256 (hex) of a file's bytes, or of the names and bytes of a folder's files.

    Raises:
        ClipError: it can't be read.
    """
    with clip_errors(uri), explained(uri):
        fs, path = file_system(uri)
        digest = hashlib.sha256()
        if not fs.isdir(path):
            return _feed(digest, fs, path)
        for name in sorted(fs.find(path)):
            digest.update(name[len(path) :].encode() + b"\0")
            _feed(digest, fs, name)
        return digest.hexdigest()


def _feed(digest: Any, fs: Any, path: str) -> str:
    with fs.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return str(digest.hexdigest())


def _refused_in_all(ref: ClipRef, decoded: DecodedClip) -> int:
    """Packets that are refused when every frame is decoded."""
    refused = 0
    for start_s, end_s in _windows(ref.start_s or 0.0, decoded.duration_s, ref.end_s):
        piece = decode_clip(
            ref.uri,
            choose_frames=lambda number: range(number),
            start_s=start_s,
            end_s=end_s,
            with_audio=False,
            max_side_px=_WINDOW_SIDE_PX,
        )
        refused += piece.refused_packets
    return refused


def _windows(
    start_s: float, duration_s: float, end_s: float | None
) -> Iterator[tuple[float, float | None]]:
    """Pieces of a clip; the last one ends where the clip does."""
    count = max(1, math.ceil(duration_s / WINDOW_S - 0.5))
    for number in range(count):
        is_last = number == count - 1
        begin = start_s + number * WINDOW_S
        yield begin, end_s if is_last else begin + WINDOW_S


def _count_findings(ref: ClipRef, decoded: DecodedClip, refused: int) -> Iterator[Finding]:
    if ref.num_frames is not None and ref.num_frames != decoded.num_source_frames:
        yield Finding.of(
            ref,
            "frame_count",
            f"num_frames is {ref.num_frames}, the clip has {decoded.num_source_frames}",
        )
    if refused:
        yield Finding.of(ref, "damaged", f"{refused} packets can't be decoded")


def _sound_findings(clip: ClipToExamine, decoded: DecodedClip) -> Iterator[Finding]:
    if decoded.audio is None:
        if clip.has_audio:
            yield Finding.of(clip.ref, "missing_audio", "has_audio is true, the clip has no sound")
        return
    if clip.has_audio is False:
        yield Finding.of(clip.ref, "unexpected_audio", "has_audio is false, the clip has sound")
    if not decoded.audio.size or float(np.abs(decoded.audio).max()) < SILENT_PEAK:
        yield Finding.of(clip.ref, "silent_audio", "its sound stays below -60 dB")


def _has_face(decoded: DecodedClip) -> bool:
    rest = [number for number in range(NUM_FRAMES) if number not in FACE_FRAMES]
    detector = _detector()
    return any(detector.detect(decoded.frames_THWC[k]) for k in (*FACE_FRAMES, *rest))


@lru_cache(maxsize=1)
def _detector() -> FaceDetector:
    return FaceDetector()
