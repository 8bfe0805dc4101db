"""Reading MP4 from object storage without fetching what a clip does not need.

An MP4's index says of every packet when it is shown, where it lies and how large it is. So the file
is read twice: first hollow, with zeros for what has not been fetched, which tells the packets'
times and places; and, once the needed packets have been fetched, for their content. What the index
said is then compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mien.media.containers import MediaFile
from mien.media.remote import Range, RemoteFile

# Of other codecs FFmpeg looks into the packets to tell where they begin and end.
_INDEXED_CODECS = ("h264", "hevc", "mpeg4", "aac")
_LONGEST_INDEX = 2**26


class UntrueIndexError(Exception):
    """An index that does not agree with the packets: the file has to be read as a whole."""


def may_skip(container: Any, media: MediaFile, streams: Sequence[Any]) -> bool:
    """Whether everything about the packets of the streams, but their content, is in an index."""
    return (
        media.remote is not None
        and media.is_index_trusted
        and not media.remote.is_whole
        and "mp4" in container.format.name.split(",")
        and all(stream.codec_context.name in _INDEXED_CODECS for stream in streams)
        and _is_unfragmented(media.remote)
    )


def _is_unfragmented(remote: RemoteFile) -> bool:
    """Whether an MP4's only index is its movie box; fragments have their own, among the packets."""
    for kind, start, stop in _boxes(remote):
        if kind == b"moov":
            return stop - start <= _LONGEST_INDEX and b"mvex" not in remote.read_at((start, stop))
    return False


def _boxes(remote: RemoteFile) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes of an MP4: kind, and where it begins and ends."""
    start = 0
    while start + 8 <= remote.size:
        header = remote.read_at((start, start + 16))
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        stop = start + length if length else remote.size
        if stop <= start + 7:
            return
        yield kind, start, stop
        start = stop


def key_frame_places(stream: Any) -> frozenset[int]:
    """Where an index says that key frames lie; of hollow packets FFmpeg itself cannot tell."""
    return frozenset(entry.pos for entry in stream.index_entries if entry.is_keyframe)


def place_of(packet: Any) -> Range:
    """Where a packet's bytes lie in the file."""
    return packet.pos, packet.pos + packet.size
