"""Paths and URIs of media and manifests: local paths, s3://, gs://, memory://, anything fsspec.

A *location* here is a string. Local paths stay plain paths (no file:// prefix), everything else is
an fsspec URL. Locations inside a manifest may be relative to the manifest's folder.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec


class StorageError(ValueError):
    """A location that cannot be reached; `reason` is a short code such as `missing_file`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


def is_remote(location: str) -> bool:
    """Whether a location needs fsspec rather than the local file system."""
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> str:
    """The plain path of a local location (strips `file://`)."""
    return location[len("file://") :] if location.startswith("file://") else location


def is_absolute(location: str) -> bool:
    """Whether a location stands on its own, without a base folder."""
    return "://" in location or os.path.isabs(location)


def absolute(location: str) -> str:
    """A location that no longer depends on the working directory."""
    return location if is_remote(location) else os.path.abspath(local_path(location))


def parent(location: str) -> str:
    """The folder of a location."""
    if is_remote(location):
        scheme, rest = location.split("://", 1)
        return f"{scheme}://{rest.rsplit('/', 1)[0] if '/' in rest else ''}"
    return os.path.dirname(absolute(location))


def join(base: str, location: str) -> str:
    """Resolve a location against a folder; absolute locations come back unchanged."""
    if is_absolute(location):
        return local_path(location)
    if is_remote(base):
        return f"{base.rstrip('/')}/{location.removeprefix('./')}"
    return os.path.normpath(os.path.join(local_path(base), location))


def relative_to(location: str, folder: str) -> str:
    """A location as seen from a folder, or unchanged where it lies outside of the folder."""
    prefix = folder.rstrip("/") + "/"
    return location[len(prefix) :] if location.startswith(prefix) else location


@contextlib.contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn whatever a file system raises into a `StorageError` that says what to check."""
    try:
        yield
    except StorageError:
        raise
    except ImportError as error:
        raise StorageError(
            "storage_unreadable",
            f"cannot read {location}: {error}. Install the fsspec package for this scheme "
            "(s3:// needs `pip install s3fs`, gs:// needs `pip install gcsfs`).",
        ) from error
    except FileNotFoundError as error:
        raise StorageError(
            "missing_file",
            f"there is no {location}. Check the spelling; relative uris are resolved against the "
            "manifest's folder.",
        ) from error
    except PermissionError as error:
        raise StorageError(
            "no_permission",
            f"not allowed to read {location}: {error}. Check the file's mode or owner, or the "
            "credentials and bucket policy for object storage.",
        ) from error
    except Exception as error:
        # Object-store clients raise dozens of unrelated types (botocore, aiohttp, google.api_core).
        raise StorageError(
            "storage_unreadable",
            f"cannot read {location}: {type(error).__name__}: {error}. Check the bucket's name, "
            "the endpoint, the network and the credentials (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...).",
        ) from error


def file_system(location: str) -> tuple[Any, str]:
    """The fsspec file system of a location and the path inside it."""
    with explained(location):
        fs, path = fsspec.core.url_to_fs(location)
        return fs, path


def read_bytes(location: str) -> bytes:
    """All bytes of a file.

    Raises:
        StorageError: missing, forbidden or unreachable.
    """
    fs, path = file_system(location)
    with explained(location):
        data: bytes = fs.cat_file(path)
        return data


def is_folder(location: str) -> bool:
    """Whether a location is a folder (or a prefix in a bucket).

    Raises:
        StorageError: the storage cannot be reached.
    """
    if not is_remote(location):
        return os.path.isdir(local_path(location))
    fs, path = file_system(location)
    with explained(location):
        return bool(fs.isdir(path))


def write_bytes_atomically(location: str, data: bytes) -> None:
    """Write a file so that readers see the old content or the whole new one, never a part.

    The bytes go to a temporary name in the same folder, which is then moved over the target; if
    anything fails, the temporary file is removed and the target is untouched.
    """
    if is_remote(location):
        _write_remote(location, data)
        return
    path = absolute(location)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def _write_remote(location: str, data: bytes) -> None:
    fs, path = file_system(location)
    part = f"{path}.{uuid.uuid4().hex}.part"
    with explained(location):
        try:
            fs.makedirs(parent_path(path), exist_ok=True)
            fs.pipe_file(part, data)
            fs.mv(part, path)
        except BaseException:
            if fs.exists(part):
                fs.rm_file(part)
            raise


def parent_path(path: str) -> str:
    """The folder of a path inside a file system (no scheme)."""
    return path.rsplit("/", 1)[0] if "/" in path else ""
