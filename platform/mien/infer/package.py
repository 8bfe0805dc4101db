"""The model package: the folder that a training ships and everything else loads.

::

    package/
        model.json            PackageInfo, with the SHA-256 of the weights
        weights.safetensors   every tensor of the method's state_dict (a slim package: without
                              those of the parts that ``left_out`` names)

Nothing in it is pickled, so loading a package that a stranger handed over runs none of his code.
The folder is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mien import __version__
from mien.clips.labels import LabelError, LabelSet
from mien.infer.stream_json import stream_spec_from_json, stream_spec_to_json
from mien.media.storage import write_bytes_atomically
from mien_models.contract import Method, StreamSpec

FORMAT_VERSION = 1
INFO_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


class PackageError(ValueError):
    """A folder that is no model package, or a broken one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageInfo:
    """What is known about a shipped model; everything but its tensors."""

    method: str
    """Name in the METHODS table."""
    config: Mapping[str, Any]
    """The method's configuration as JSON values."""
    label_set: LabelSet
    """Which class each logit stands for."""
    prediction_stream: StreamSpec
    """How a clip has to look for the method's ``predict``."""
    stages_begun: int
    """How many times ``begin_stage`` was called, which decides the network's shape."""
    json_state: Mapping[str, Any] = field(default_factory=dict)
    """The method's ``json_state()``."""
    pretrained: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of each part that was taken as given: what it is, its licence, its hashes."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The resolved recipe of the training."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The scores it was shipped with."""
    split_hash: str = ""
    manifest_hash: str = ""
    git_sha: str = ""
    mien_version: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC, ISO 8601."""
    format_version: int = FORMAT_VERSION
    weights_sha256: str = ""
    """Filled in by :func:`save_package`."""
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of a slim package, the parts that others trained and that it does not carry, with what
    :attr:`pretrained` knows of them; loading needs them put back."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """By input (``video+audio``, ``video``): what logits are divided by for probabilities that are
    frequencies, fitted on validation clips. Empty: never fitted, as in older packages."""
    whole_sha256: str = ""
    """Of a slim package, the weights' hash before the parts were left out."""

    def to_json(self) -> dict[str, Any]:
        """The info as JSON values."""
        data = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        data["label_set"] = json.loads(self.label_set.to_json())
        data["prediction_stream"] = stream_spec_to_json(self.prediction_stream)
        return data

    @classmethod
    def from_json(cls, data: Any) -> PackageInfo:
        """Reads what :meth:`to_json` wrote.

        Raises:
            PackageError: missing or unknown fields, a newer format, a wrong label set or stream.
        """
        if not isinstance(data, dict) or "format_version" not in data:
            raise PackageError(f"{INFO_FILE} is not a Mien model: it holds no format_version")
        version = data["format_version"]
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise PackageError(
                f"this package has format {version!r}, this Mien ({__version__}) reads up to "
                f"{FORMAT_VERSION}; it was written by Mien {data.get('mien_version')}: install "
                "that version or a newer one"
            )
        _check_fields(cls, data)
        try:
            label_set = LabelSet.from_json(json.dumps(data["label_set"]))
            stream = stream_spec_from_json(data["prediction_stream"])
        except (LabelError, ValueError) as error:
            raise PackageError(f"{INFO_FILE}: {error}") from error
        return cls(**{**data, "label_set": label_set, "prediction_stream": stream})


def save_package(
    folder: str | Path,
    info: PackageInfo,
    tensors: Mapping[str, Tensor],
    *,
    expected_sha256: str | None = None,
) -> Path:
    """Writes a package, whole or not at all; an older package in its place is replaced.

    Args:
        folder: where; must not exist, be empty, or be a package.
        info: everything but the tensors; ``weights_sha256`` is filled in here.
        tensors: the method's ``state_dict()``, on any device.
        expected_sha256: what the hash of the weights must come out as; None: anything.

    Returns:
        The folder.

    Raises:
        PackageError: ``folder`` holds something else, ``info`` holds values that are not JSON, or
            the weights are not those expected.
        OSError: the disk is full or read-only; nothing is left behind.
    """
    target = Path(folder).absolute()
    if target.exists() and not _may_be_replaced(target):
        raise PackageError(f"{target} exists and is not a model package; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        _write_weights(partial / WEIGHTS_FILE, tensors)
        digest = sha256_of(partial / WEIGHTS_FILE)
        if expected_sha256 is not None and digest != expected_sha256:
            raise PackageError(
                f"these weights don't make the package that was meant: SHA-256 {digest[:12]}..., "
                f"expected {expected_sha256[:12]}..."
            )
        text = _info_text(dataclasses.replace(info, weights_sha256=digest))
        (partial / INFO_FILE).write_text(text, encoding="utf-8")
        _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def set_temperatures(folder: str | Path, temperatures: Mapping[str, float]) -> None:
    """Writes into a package what :attr:`PackageInfo.temperatures` describes; weights stay.

    Raises:
        PackageError: not a package.
    """
    info = dataclasses.replace(read_info(folder), temperatures=dict(temperatures))
    write_bytes_atomically(str(Path(folder) / INFO_FILE), _info_text(info).encode())


def load_package(folder: str | Path) -> tuple[PackageInfo, dict[str, Tensor]]:
    """Reads a package and checks its weights against their hash.

    Returns:
        The info and the tensors, on the CPU.

    Raises:
        PackageError: no such folder, a missing or unreadable file, changed weights, newer format.
    """
    info = read_info(folder)
    if info.left_out:
        files = " ".join(f"{part}=FILE" for part in info.left_out)
        raise PackageError(
            f"{folder} is a slim package, without {', '.join(info.left_out)}; put them back with "
            f"`mien weights complete {folder} --with {files} --out FOLDER`"
        )
    return info, _load_weights(folder, info)


def load_slim(folder: str | Path) -> tuple[PackageInfo, dict[str, Tensor]]:
    """As :func:`load_package`, with what a slim package holds of the tensors.

    Raises:
        PackageError: as :func:`load_package`, and for a package that is whole.
    """
    info = read_info(folder)
    if not info.left_out:
        raise PackageError(f"{folder} is whole: nothing was left out of it")
    return info, _load_weights(folder, info)


def _load_weights(folder: str | Path, info: PackageInfo) -> dict[str, Tensor]:
    weights = Path(folder) / WEIGHTS_FILE
    if not weights.is_file():
        raise PackageError(f"{folder}: {WEIGHTS_FILE} is missing; copy the whole package folder")
    digest = sha256_of(weights)
    if digest != info.weights_sha256:
        raise PackageError(
            f"{weights} does not belong to its {INFO_FILE}: SHA-256 is {digest[:12]}..., expected "
            f"{info.weights_sha256[:12]}...; the file was changed or cut short: copy it again"
        )
    try:
        return load_file(weights)
    except SafetensorError as error:
        raise PackageError(f"{weights} is not a safetensors file: {error}") from error


def read_info(folder: str | Path) -> PackageInfo:
    """The info of a package without its tensors.

    Raises:
        PackageError: not a package, or one that this version can't read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise PackageError(f"{path} is not a folder; give the folder that holds {INFO_FILE}")
    if not (path / INFO_FILE).is_file():
        raise PackageError(
            f"{path} is not a model package: it holds no {INFO_FILE}; 'mien train' writes packages"
        )
    try:
        data = json.loads((path / INFO_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackageError(f"{path / INFO_FILE} is not JSON: {error}") from error
    try:
        return PackageInfo.from_json(data)
    except PackageError as error:
        raise PackageError(f"{path}: {error}") from error


def restore_method(method: Method, info: PackageInfo, tensors: Mapping[str, Tensor]) -> Method:
    """Gives a freshly built method the state of a package; it is ready to predict afterwards.

    Args:
        method: built from ``info.config`` and ``info.label_set.classes``.
        info: of the package.
        tensors: of the package.

    Raises:
        PackageError: the tensors don't fit this network (a different version of the method).
    """
    begin_stages(method, info)
    try:
        method.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise PackageError(
            f"the weights don't fit {type(method).__name__} of Mien {__version__} (written by "
            f"{info.mien_version}, commit {info.git_sha or 'unknown'}): {error}"
        ) from error
    return method.eval()


def begin_stages(method: Method, info: PackageInfo) -> None:
    """Gives a freshly built method the shape that a package's network has.

    Raises:
        PackageError: the method was built for other classes.
    """
    if tuple(method.classes) != info.label_set.classes:
        raise PackageError(
            f"the method was built for classes {list(method.classes)}, the package holds "
            f"{list(info.label_set.classes)}"
        )
    method.load_json_state(dict(info.json_state))
    for index in range(info.stages_begun):
        method.begin_stage(index)
    method.finish()


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_fields(cls: type[PackageInfo], data: Mapping[str, Any]) -> None:
    fields = dataclasses.fields(cls)
    names = {item.name for item in fields}
    required = {
        item.name
        for item in fields
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    if unknown := sorted(set(data) - names):
        raise PackageError(f"{INFO_FILE} holds unknown fields: {', '.join(unknown)}")
    if missing := sorted((required | {"weights_sha256"}) - set(data)):
        raise PackageError(f"{INFO_FILE} lacks {', '.join(missing)}")


def _write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(_storable(tensors), path)
        path.chmod(0o644)  # safetensors makes files that nobody else may read
    except SafetensorError as error:
        raise OSError(f"can't write the weights to {path.parent.parent}: {error}") from error


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors; those that share memory (tied weights) are written out twice."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        pointer = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if pointer in seen else plain
        seen.add(pointer)
    return stored


def _info_text(info: PackageInfo) -> str:
    try:
        return json.dumps(info.to_json(), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise PackageError(f"the package's info can't be written as JSON: {error}") from error


def _may_be_replaced(folder: Path) -> bool:
    return folder.is_dir() and ((folder / INFO_FILE).is_file() or not any(folder.iterdir()))


def _put_in_place(partial: Path, target: Path) -> None:
    """Renames; folders can't be replaced in one step, so an old package steps aside first."""
    if not target.exists():
        os.rename(partial, target)
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
    os.rename(target, aside)
    try:
        os.rename(partial, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside)
