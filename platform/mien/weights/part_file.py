"""A part of a network that others trained, as one safetensors file that says what it is.

``mien weights import`` writes these from published checkpoints; training reads them. The header of
the file holds its kind, the part that it is for, its licence and the hash of what it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mien.media.storage import StorageError, read_bytes, write_bytes_atomically
from mien.weights.torch_file import WeightsError

_PREFIX = "mien."


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFacts:
    """What a file says of itself."""

    kind: str
    """What was imported (``mae_face``, ``audiomae`` ...)."""
    part: str
    """Part of a network that it is for (``video_encoder``)."""
    licence: str
    source_sha256: str
    """Of the published file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Weights of a part under the names that they were published with."""

    facts: PartFacts
    tensors: Mapping[str, Tensor]
    sha256: str
    """Of the file that was read."""


def write_part(location: str, facts: PartFacts, tensors: Mapping[str, Tensor]) -> str:
    """Writes a file, whole or not at all; returns its SHA-256.

    Raises:
        StorageError: the location cannot be written to.
    """
    header = {_PREFIX + name: value for name, value in asdict(facts).items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(plain, metadata=header)
    write_bytes_atomically(location, data)
    return hashlib.sha256(data).hexdigest()


def read_part(location: str) -> Part:
    """Reads a file that :func:`write_part` wrote.

    Raises:
        WeightsError: missing, unreadable, or another kind of file.
    """
    try:
        data = read_bytes(location)
    except StorageError as error:
        raise WeightsError(f"cannot read the weights {location}: {error}") from error
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise WeightsError(f"{location} is no whole safetensors file: {error}") from error
    facts = facts_in(data)
    if facts is None:
        raise WeightsError(
            f"{location} does not say what it is; make it of the published checkpoint with "
            "`mien weights import FILE --as KIND --out PART.safetensors`"
        )
    return Part(facts=facts, tensors=tensors, sha256=hashlib.sha256(data).hexdigest())


def facts_in(data: bytes) -> PartFacts | None:
    """What the bytes of a safetensors file say it is; None where :func:`write_part` didn't write
    it."""
    header = _header(data)
    if _PREFIX + "part" not in header:
        return None
    return PartFacts(**{name: header.get(_PREFIX + name, "") for name in PartFacts.__slots__})


def _header(data: bytes) -> dict[str, str]:
    """The texts that a safetensors file carries: its JSON header follows 8 bytes of length."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header.get("__metadata__", {})
