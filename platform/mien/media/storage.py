"""Paths and URIs of media and manifests: local paths, s3://, gs://, memory://, anything fsspec.

A *location* here is a string. Local paths stay plain paths (no file:// prefix), everything else is
an fsspec URL. Locations inside a manifest may be relative to the manifest's folder.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec

from mien.media.storage_faults import StorageError as StorageError
from mien.media.storage_faults import StorageUnreachableError as StorageUnreachableError
from mien.media.storage_faults import StorageUnusableError as StorageUnusableError
from mien.media.storage_faults import fault_of, missing_bucket

PATIENCE_S = 300.0
"""How long a storage may be away before a run stops; MIEN_STORAGE_PATIENCE_S sets another time."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 20.0

# There, one request puts a whole object or none.
_PUTS_ARE_ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

# Their clients answer "nothing there" for a bucket that does not exist.
_BUCKETS_ARE_HIDDEN = ("gs", "gcs", "az", "abfs", "abfss")
# adlfs hands a negative start on to Azure, which refuses it.
_NO_NEGATIVE_START = ("az", "abfs", "abfss")

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


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
    """Turn whatever a file system raises into a `StorageError` that says what to check.

    Raises:
        StorageError: this file cannot be read.
        StorageUnusableError: nothing there can (credentials, permission, bucket, endpoint).
    """
    try:
        yield
    except StorageError:
        raise
    except (TypeError, AttributeError, NameError, AssertionError):
        raise  # a fault of a program, not of a storage: waiting mends nothing
    except Exception as error:
        fault = fault_of(location, _in_detail(location, error))
        if fault.reason == "missing_file":
            _require_bucket(location)
        raise fault.as_error() from error


def _require_bucket(location: str) -> None:
    """Says so if there is no bucket, where the client of a scheme takes that for an absent file."""
    scheme = location.split("://", 1)[0]
    if scheme not in _BUCKETS_ARE_HIDDEN:
        return
    fs, path = fsspec.core.url_to_fs(location)
    try:
        is_there = bool(fs.exists(path.split("/", 1)[0]))
    except Exception as error:
        if fault_of(location, error).scope == "moment":
            raise fault_of(location, error).as_error() from error
        return  # a key that may read objects need not be allowed to look at the bucket
    if not is_there:
        raise missing_bucket(location).as_error()


def _in_detail(location: str, error: Exception) -> Exception:
    """The error, or a better one: a refused HEAD request has no body that says why."""
    if not (is_remote(location) and isinstance(error, PermissionError)):
        return error
    try:
        fs, path = fsspec.core.url_to_fs(location)
        fs.isdir(path)
    except PermissionError as detailed:
        return detailed
    except Exception:
        return error
    return error


def patiently(location: str, action: Callable[[], Result]) -> Result:
    """Do something at a location, again and again while the storage is away or overloaded.

    Waits grow exponentially, with jitter, so that many workers do not come back at once. The
    action must be one that may be done twice.

    Raises:
        StorageUnreachableError: the storage was away for longer than `PATIENCE_S`.
        StorageError: a failure that another try would meet again.
    """
    limit_s = patience_s()
    started = time.monotonic()
    for attempt in itertools.count():
        try:
            with explained(location):
                return action()
        except StorageUnreachableError as error:
            left_s = limit_s - (time.monotonic() - started)
            if left_s <= 0:
                raise StorageUnreachableError(
                    error.reason,
                    f"{error} Tried for {limit_s:g} s (MIEN_STORAGE_PATIENCE_S sets another time); "
                    "a run goes on from its newest checkpoint when it is started again.",
                ) from error
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            if attempt == 0:
                _log.warning("%s Trying again for %.0f s.", error, left_s)
            time.sleep(min(wait_s, left_s))
    raise AssertionError


def patience_s() -> float:
    """Seconds that a storage may be away before `patiently` gives up."""
    text = os.environ.get("MIEN_STORAGE_PATIENCE_S", "")
    try:
        return float(text) if text else PATIENCE_S
    except ValueError:
        raise StorageUnusableError(
            "bad_setting", f"MIEN_STORAGE_PATIENCE_S={text!r} must be a number of seconds, as 300"
        ) from None


def file_system(location: str) -> tuple[Any, str]:
    """The fsspec file system of a location and the path inside it."""
    # Listings are not kept: other workers write there too.
    options = {"use_listings_cache": False} if is_remote(location) else {}
    with explained(location):
        fs, path = fsspec.core.url_to_fs(location, **options)
        return fs, path


def read_bytes(location: str) -> bytes:
    """All bytes of a file.

    Raises:
        StorageError: missing, forbidden or unreachable.
    """
    fs, path = file_system(location)
    data: bytes = patiently(location, lambda: fs.cat_file(path))
    return data


def read_range(location: str, start: int | None, end: int | None) -> bytes:
    """The bytes [start, end) of a file; a negative start counts from its end.

    Raises:
        StorageError: missing, forbidden or unreachable.
    """
    fs, path = file_system(location)

    def read() -> bytes:
        first = start
        if start is not None and start < 0 and location.split("://", 1)[0] in _NO_NEGATIVE_START:
            first = max(0, int(fs.info(path)["size"]) + start)
        return bytes(fs.cat_file(path, start=first, end=end))

    return patiently(location, read)


def is_folder(location: str) -> bool:
    """Whether a location is a folder (or a prefix in a bucket).

    Raises:
        StorageError: the storage cannot be reached, or there is no such bucket.
    """
    if not is_remote(location):
        return os.path.isdir(local_path(location))
    fs, path = file_system(location)

    def is_one() -> bool:
        return fs.isdir(path) or _is_listed_as_folder(fs, path, location)

    return bool(patiently(location, lambda: _or_nothing(location, is_one())))


def _is_listed_as_folder(fs: Any, path: str, location: str) -> bool:
    """False for a file and for what does not exist, but an error for a bucket that doesn't."""
    try:
        return bool(fs.info(path)["type"] == "directory")
    except FileNotFoundError as error:
        if fault_of(location, error).scope == "file":
            return False
        raise


def exists(location: str) -> bool:
    """Whether there is a file or folder.

    Raises:
        StorageError: the storage cannot be reached, or there is no such bucket.
    """
    fs, path = file_system(location)
    return bool(patiently(location, lambda: _or_nothing(location, fs.exists(path))))


def list_files(folder: str) -> list[str]:
    """All files below a folder, sorted, as seen from it; none where there is no such folder.

    Raises:
        StorageError: the storage cannot be reached.
    """
    fs, path = file_system(folder)
    found: list[str] = patiently(folder, lambda: _or_nothing(folder, fs.find(path)))
    return sorted(entry[len(path.rstrip("/")) + 1 :] for entry in found)


def _or_nothing(location: str, answer: Result) -> Result:
    """The answer, once "nothing there" is known to mean no file rather than no bucket."""
    if not answer:
        _require_bucket(location)
    return answer


def remove(location: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none.

    Raises:
        StorageError: the storage cannot be reached or does not let us.
    """
    fs, path = file_system(location)

    def rm() -> None:
        with contextlib.suppress(FileNotFoundError):  # by whoever tried before
            fs.rm(path, recursive=True)
        # s3fs does not tell that a key may not delete several at once; of one it does.
        for left in fs.find(path) if is_remote(location) else ():
            if left == path or left.startswith(f"{path.rstrip('/')}/"):
                fs.rm_file(left)

    patiently(location, rm)


def write_bytes_atomically(location: str, data: bytes) -> None:
    """Write a file so that readers see the old content or the whole new one, never a part.

    The bytes go to a temporary name in the same folder, which is then moved over the target; if
    anything fails, the temporary file is removed and the target is untouched. Object stores need
    no such name.

    Raises:
        StorageError: a remote location cannot be written to.
        OSError: a local one cannot.
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


def write_file_atomically(location: str, source: str) -> None:
    """Put a local file, which may be too large for memory, at a location: whole or not at all.

    Raises:
        StorageError: a remote location cannot be written to.
        OSError: a local one cannot.
    """
    if is_remote(location):
        fs, path = file_system(location)
        is_one_step = location.split("://", 1)[0] in _PUTS_ARE_ATOMIC
        patiently(location, lambda: _put_file(fs, source, path, is_one_step=is_one_step))
        return
    path = absolute(location)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        shutil.copyfile(source, part)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _put_file(fs: Any, source: str, path: str, *, is_one_step: bool) -> None:
    part = path if is_one_step else f"{path}.{uuid.uuid4().hex}.part"
    if not is_one_step:
        fs.makedirs(parent_path(path), exist_ok=True)
    fs.put_file(source, part)
    if not is_one_step:
        fs.mv(part, path)


def _write_remote(location: str, data: bytes) -> None:
    fs, path = file_system(location)
    if location.split("://", 1)[0] in _PUTS_ARE_ATOMIC:
        patiently(location, lambda: fs.pipe_file(path, data))
    else:
        patiently(location, lambda: _write_and_move(fs, path, data))


def _write_and_move(fs: Any, path: str, data: bytes) -> None:
    part = f"{path}.{uuid.uuid4().hex}.part"
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
