"""One clip from storage to arrays: the wanted frames, exactly, and its sound.

"Exactly" means: the same bytes as a full decode gives for these frames, counted in the order in
which they are shown. Time zero of a file is its first presentable frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mien.media.audio_track import Sound, decode_audio_file, decode_waveform
from mien.media.containers import PICTURE_SUFFIXES, MediaFile, PictureOrder, clip_errors
from mien.media.errors import ClipError
from mien.media.frame_times import ChooseFrames, DecodedVideo, Wanted, stated_times
from mien.media.packets import (
    ClipPackets,
    audio_stream,
    fetched_audio,
    read_packets,
    stated_duration_s,
    video_stream,
)
from mien.media.pictures import quarter_turns
from mien.media.sequential import decode_everything, decode_sequentially, nothing_decodable
from mien.media.skipping import UntrueIndexError
from mien.media.storage import absolute, is_folder, is_remote
from mien.media.video import (
    Damage,
    decode_fast,
    decode_in_order,
    first_video_packets,
    set_threads,
)

# Among so many there is a picture, but in damaged films.
_PROBED_PACKETS = 32

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedClip:
    """The wanted frames of a clip and its sound. T frames, H W pixels, N samples."""

    frames_THWC: npt.NDArray[np.uint8]
    """RGB, upright."""
    frame_times_s: npt.NDArray[np.float64]
    """[T] presentation times since the clip's start. In a damaged clip a frame that could not be
    decoded is shown as the nearest one that could, and this is that one's time."""
    frame_indices: npt.NDArray[np.int64]
    """[T] the frame numbers that were asked for."""
    audio: npt.NDArray[np.float32] | None
    """[N] mono, mean of the channels, sample 0 at the clip's start; None if there is none."""
    sample_rate_hz: int
    """0 where there is no sound."""
    num_source_frames: int
    """Presentable frames of the clip."""
    refused_packets: int
    """Damaged places that demuxer and decoders refused."""
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInfo:
    """What a file says of itself."""

    num_frames: int
    width: int
    """Pixels, upright."""
    height: int
    fps: float
    """Mean frames a second."""
    rotation_deg: int
    """By which the stored pictures are turned for showing, counter-clockwise: 0, 90, 180, 270."""
    duration_s: float
    has_audio: bool
    container: str
    """FFmpeg's name of the container, or ``folder``."""
    codec: str


def decode_clip(
    uri: str,
    *,
    choose_frames: ChooseFrames,
    start_s: float | None = None,
    end_s: float | None = None,
    audio_uri: str | None = None,
    with_audio: bool = True,
    sample_rate_hz: int | None = 16_000,
    picture_order: PictureOrder = "natural",
    max_side_px: int | None = None,
    min_decoded_fraction: float = 0.5,
    num_threads: int = 1,
) -> DecodedClip:
    """Decode the frames that ``choose_frames`` asks for, and the clip's sound.

    Args:
        uri: A media file, a folder of pictures or a picture; a path or any fsspec URL.
        choose_frames: Gets the number of presentable frames in [start_s, end_s) and returns the
            wanted ones, non-decreasing, repeats allowed. It may be called twice, when packets
            announced more frames than the decoder gives out; the last call counts.
        start_s: Start of the clip in seconds since the file's first frame; None is the beginning.
        end_s: Its end; None is the end of the file.
        audio_uri: Sound that lies in a file of its own, on the same clock.
        with_audio: False leaves the sound out.
        sample_rate_hz: Of the sound; None: its own rate, and its first channel alone instead of the
            mean of all.
        picture_order: Of the pictures of a folder.
        max_side_px: Shrinks pictures to this long side.
        min_decoded_fraction: A clip of which less can be decoded is an error.
        num_threads: Threads of the video decoder.

    Raises:
        ClipError: the clip cannot be used; `reason` says why.
        ValueError: ``choose_frames`` returned what the clip does not have.
    """
    location = absolute(uri)
    wanted = Wanted(
        choose_frames=choose_frames,
        start_s=start_s,
        end_s=end_s,
        max_side_px=max_side_px,
        min_decoded_fraction=min_decoded_fraction,
    )
    with_own_sound = with_audio and audio_uri is None
    with clip_errors(location):
        if is_pictures(location):
            clip = _assemble(_image_folder().decode_folder(location, wanted, picture_order), wanted)
        else:
            clip = _by_index_if_true(
                MediaFile(location),
                lambda media: _decode_file(
                    media, wanted, num_threads, with_own_sound, sample_rate_hz
                ),
            )
    if with_audio and audio_uri is not None:
        clip = _with_sound_of(audio_uri, clip, wanted, sample_rate_hz)
    return clip


def _with_sound_of(
    audio_uri: str, clip: DecodedClip, wanted: Wanted, sample_rate_hz: int | None
) -> DecodedClip:
    """The clip with the sound of a file of its own."""
    sound, refused = decode_audio_file(
        audio_uri,
        start_s=wanted.start_s or 0.0,
        duration_s=clip.duration_s,
        is_open_ended=wanted.end_s is None,
        sample_rate_hz=sample_rate_hz,
    )
    return _with_sound(clip, sound, refused)


def _with_sound(clip: DecodedClip, sound: Sound | None, refused: int) -> DecodedClip:
    clip = replace(clip, refused_packets=clip.refused_packets + refused)
    if sound is None:
        return clip
    return replace(clip, audio=sound.samples, sample_rate_hz=sound.rate_hz)


def probe_clip(uri: str) -> ClipInfo:
    """Size, number of frames and sound of a file or folder; decodes one frame where that is enough.

    Raises:
        ClipError: the clip cannot be used; `reason` says why.
    """
    location = absolute(uri)
    with clip_errors(location):
        if is_pictures(location):
            return _probe_folder(location)
        return _by_index_if_true(MediaFile(location), _probe_file)


def _by_index_if_true(media: MediaFile, read: Callable[[MediaFile], Result]) -> Result:
    try:
        return read(media)
    except UntrueIndexError:
        media.distrust_index()
        return read(media)


def _image_folder() -> ModuleType:
    # Not imported on top: only clips that are folders need Pillow.
    from mien.media import image_folder

    return image_folder


def is_pictures(location: str) -> bool:
    """Whether a clip is a folder of pictures, or a picture: a clip of one frame."""
    if location.lower().endswith(PICTURE_SUFFIXES):
        return True
    # A bucket is asked only where the name does not look like a file's: that is one request less.
    last = location.rsplit("/", 1)[-1]
    return ("." not in last or not is_remote(location)) and is_folder(location)


def _decode_file(
    media: MediaFile,
    wanted: Wanted,
    num_threads: int,
    with_sound: bool,
    sample_rate_hz: int | None,
) -> DecodedClip:
    location = media.location
    with media.open() as container:
        stream, sound = video_stream(container, location), audio_stream(container)
        set_threads(stream, num_threads)
        packets = read_packets(
            container, stream, sound, media, start_s=wanted.start_s, end_s=wanted.end_s
        )
        _check_coverage(container, stream, packets, location, wanted)
        if not with_sound:
            packets.audio = []
        video = decode_fast(container, stream, packets, media, wanted)
        if video is None:
            video = decode_sequentially(media, wanted, num_threads)
        clip = _assemble(video, wanted)
        decoded, refused = None, 0
        if with_sound and sound is not None:
            decoded, refused = decode_waveform(
                sound,
                fetched_audio(media, packets),
                zero_s=video.times.zero_s,
                start_s=wanted.start_s or 0.0,
                duration_s=clip.duration_s,
                is_open_ended=wanted.end_s is None,
                sample_rate_hz=sample_rate_hz,
            )
    return _with_sound(clip, decoded, refused + packets.refused)


def _assemble(video: DecodedVideo, wanted: Wanted) -> DecodedClip:
    start_s = wanted.start_s or 0.0
    end_s = min(math.inf if wanted.end_s is None else wanted.end_s, video.times.end_s)
    seconds = video.times.seconds(video.times.ticks)[video.shown] - start_s
    return DecodedClip(
        frames_THWC=video.frames_THWC,
        frame_times_s=np.maximum(seconds, 0.0),
        frame_indices=video.indices,
        audio=None,
        sample_rate_hz=0,
        num_source_frames=len(video.times.ticks),
        refused_packets=video.refused,
        duration_s=end_s - start_s,
    )


def _check_coverage(
    container: Any, stream: Any, packets: ClipPackets, location: str, wanted: Wanted
) -> None:
    """Raise if the file ends long before its header says."""
    promised_s, is_of_video = stated_duration_s(container, stream)
    if promised_s is None:
        return
    start_s = wanted.start_s or 0.0
    clip_s = min(promised_s, math.inf if wanted.end_s is None else wanted.end_s) - start_s
    begin = stream.start_time * stream.time_base if is_of_video and stream.start_time else 0.0
    read_s = (packets.video_end_s if is_of_video else packets.end_s) - float(begin)
    if clip_s > 0 and read_s - start_s < wanted.min_decoded_fraction * clip_s:
        raise ClipError(
            "truncated",
            f"{location} should last {promised_s:.2f} s, but only {max(0.0, read_s):.2f} s of it "
            "can be read: the file was cut off. Copy or download it again.",
        )


def _probe_file(media: MediaFile) -> ClipInfo:
    location = media.location
    with media.open() as container:
        stream, sound = video_stream(container, location), audio_stream(container)
        packets = read_packets(container, stream, sound, media)
        has_audio = sound is not None and bool(packets.audio)
        packets.audio = []
        times = stated_times(container, stream, packets)
        first = _first_frame(stream, packets, media)
        if times is None:
            times = decode_everything(media).times
        turns = quarter_turns(first)
        sides = (first.width, first.height)
        width, height = sides[::-1] if turns % 2 else sides
        return ClipInfo(
            num_frames=len(times.ticks),
            width=width,
            height=height,
            fps=len(times.ticks) / times.end_s,
            rotation_deg=90 * turns,
            duration_s=times.end_s,
            has_audio=has_audio,
            container=container.format.name,
            codec=stream.codec_context.name,
        )


def _first_frame(stream: Any, packets: ClipPackets, media: MediaFile) -> Any:
    for count in (_PROBED_PACKETS, None):
        feed = first_video_packets(packets, media, count)
        frame = next(decode_in_order(stream, feed, Damage()), None)
        if frame is not None:
            return frame
        stream.codec_context.flush_buffers()
    raise nothing_decodable(media.location, stream)


def _probe_folder(folder: str) -> ClipInfo:
    folders = _image_folder()
    pictures = folders.list_pictures(folder)
    height, width = folders.first_readable(pictures).shape[:2]
    times = folders.folder_times(len(pictures))
    return ClipInfo(
        num_frames=len(pictures),
        width=width,
        height=height,
        fps=float(1 / times.time_base),
        rotation_deg=0,
        duration_s=times.end_s,
        has_audio=False,
        container="folder",
        codec=pictures[0].rsplit(".", 1)[-1].lower(),
    )
