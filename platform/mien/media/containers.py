"""Opening media files: FFmpeg's containers from paths and object stores, with clear errors."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import av
import av.error

from mien.media.errors import REASONS, ClipError
from mien.media.storage import (
    StorageError,
    StorageUnusableError,
    absolute,
    explained,
    file_system,
    is_remote,
    patiently,
    read_bytes,
)

MAX_FETCHED_BYTES = 64 * 2**20
"""Remote files up to this size are fetched in one request, larger ones read piecewise."""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Files that are single pictures; Pillow reads them, not FFmpeg."""

# Only containers of video and sound. FFmpeg also knows text, playlists and scripts that name other
# files (hls, concat, dash, ...): a clip must not make a worker open those.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpeg,mpegts,mpegvideo,asf,wav,w64,mp3,"
    "ogg,flac,aac,ac3,aiff,au,amr,gif,mxf,dv,nut,ivf,h264,hevc,m4v,rm,swf,vob,wtv,yuv4mpegpipe,obu"
)


@contextlib.contextmanager
def clip_errors(location: str) -> Iterator[None]:
    """Turn what storage and FFmpeg raise about a file into a `ClipError` with a reason."""
    try:
        yield
    except (ClipError, StorageUnusableError):
        raise
    except StorageError as error:
        reason = error.reason if error.reason in REASONS else "storage_unreadable"
        raise ClipError(reason, str(error)) from error
    except (av.error.FFmpegError, OSError) as error:
        raise _explanation(location, error) from error


def _explanation(location: str, error: Exception) -> ClipError:
    if isinstance(error, FileNotFoundError):
        return ClipError(
            "missing_file",
            f"there is no {location}. Check the spelling; relative uris are resolved against the "
            "manifest's folder.",
        )
    if isinstance(error, PermissionError):
        return ClipError(
            "no_permission", f"not allowed to read {location}: check the file's mode and owner."
        )
    if isinstance(error, OSError):
        return ClipError(
            "storage_unreadable", f"cannot read {location}: {error}. Check the disk or the network."
        )
    return ClipError(
        "not_a_video",
        f"{location} is not a media file that FFmpeg can open ({error}); expected a container such "
        "as mp4, mkv, webm, mpg, avi. Check that the file is whole (`ffprobe FILE`).",
    )


@contextlib.contextmanager
def open_media(location: str) -> Iterator[Any]:
    """A container open for reading; closed on leaving.

    Local files are opened by FFmpeg itself, others through a seekable fsspec file.

    Raises:
        ClipError: missing, empty, forbidden, unreachable or not a media file.
    """
    location = absolute(location)
    with clip_errors(location), contextlib.ExitStack() as stack:
        source: Any = _remote_file(location, stack) if is_remote(location) else _local(location)
        if hasattr(source, "read"):
            stack.enter_context(contextlib.closing(source))
        # Titles and other tags are not always UTF-8, and a damaged header never is.
        container = stack.enter_context(
            av.open(source, metadata_errors="replace", options={"format_whitelist": _FORMATS})
        )
        yield container


def _local(path: str) -> Any:
    size_bytes = os.stat(path).st_size
    if os.path.isdir(path):
        raise ClipError("not_a_video", f"{path} is a folder; expected a media file.")
    if size_bytes == 0:
        raise _empty(path)
    try:
        path.encode()
    except UnicodeEncodeError:  # a name that is not UTF-8: FFmpeg's file protocol takes bytes only
        return open(path, "rb")
    return path


def _remote_file(location: str, stack: contextlib.ExitStack) -> Any:
    fs, path = file_system(location)
    size_bytes = int(patiently(location, lambda: fs.info(path))["size"] or 0)
    if size_bytes == 0:
        raise _empty(location)
    if size_bytes <= MAX_FETCHED_BYTES:
        return io.BytesIO(read_bytes(location))
    file = patiently(location, lambda: fs.open(path, "rb"))
    return _ExplainedFile(stack.enter_context(file), location)


class _ExplainedFile:
    """A remote file whose failures are `StorageError`s, whatever its client raises."""

    def __init__(self, file: Any, location: str) -> None:
        self._file = file
        self._location = location

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def read_again() -> bytes:
            self._file.seek(start)
            return bytes(self._file.read(size))

        return patiently(self._location, read_again)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with explained(self._location):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()


def _empty(location: str) -> ClipError:
    return ClipError("empty_file", f"{location} has 0 bytes. Copy or download it again.")
