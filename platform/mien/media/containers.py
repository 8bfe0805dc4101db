"""Opening media files: FFmpeg's containers from paths and object stores, with clear errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import av
import av.error

from mien.media.errors import REASONS, ClipError
from mien.media.remote import RemoteFile, RemoteReader
from mien.media.storage import StorageError, StorageUnusableError, absolute, is_remote

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Files that are single pictures; Pillow reads them, not FFmpeg."""
PictureOrder = Literal["natural", "text"]
"""Of a folder's pictures. ``text``: by their names as strings, ``frame10`` before ``frame2``."""

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
            f"there is no {location}. Check the spelling, and whether it was moved.",
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


class MediaFile:
    """A media file that may be opened several times; what was fetched of it is kept in between.

    Local files are opened by FFmpeg itself, remote ones read by ranges (`RemoteFile`).

    Raises:
        ClipError: missing, empty, forbidden or unreachable.
    """

    def __init__(self, location: str) -> None:
        self.location = absolute(location)
        self.is_index_trusted = True
        """Whether an MP4 may be read by its index alone."""
        with clip_errors(self.location):
            self.remote = RemoteFile(self.location) if is_remote(self.location) else None

    def distrust_index(self) -> None:
        """From now on, read everything."""
        self.is_index_trusted = False
        if self.remote is not None:
            self.remote.is_hollow = False

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """A container open for reading; closed on leaving.

        Raises:
            ClipError: it cannot be read or is not a media file.
        """
        with clip_errors(self.location), contextlib.ExitStack() as stack:
            source: Any = RemoteReader(self.remote) if self.remote else _local(self.location)
            if hasattr(source, "close"):
                stack.enter_context(contextlib.closing(source))
            # Titles and other tags are not always UTF-8, and a damaged header never is.
            with self._really_reading():
                container = av.open(
                    source, metadata_errors="replace", options={"format_whitelist": _FORMATS}
                )
            yield stack.enter_context(container)

    @contextlib.contextmanager
    def _really_reading(self) -> Iterator[None]:
        if self.remote is None:
            yield
            return
        is_hollow, self.remote.is_hollow = self.remote.is_hollow, False
        try:
            yield
        finally:
            self.remote.is_hollow = is_hollow


@contextlib.contextmanager
def open_media(location: str) -> Iterator[Any]:
    """A container open for reading; closed on leaving.

    Raises:
        ClipError: missing, empty, forbidden, unreachable or not a media file.
    """
    with MediaFile(location).open() as container:
        yield container


def _local(path: str) -> Any:
    size_bytes = os.stat(path).st_size
    if os.path.isdir(path):
        raise ClipError("not_a_video", f"{path} is a folder; expected a media file.")
    if size_bytes == 0:
        raise ClipError("empty_file", f"{path} has 0 bytes. Copy or download it again.")
    try:
        path.encode()
    except UnicodeEncodeError:  # a name that is not UTF-8: FFmpeg's file protocol takes bytes only
        return open(path, "rb")
    return path
