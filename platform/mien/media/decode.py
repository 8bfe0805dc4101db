"""One clip from storage to arrays: the wanted frames, exactly, and its sound.

"Exactly" means: the same bytes as a full decode gives for these frames, counted in the order in
which they are shown. Time zero of a file is its first presentable frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.media.audio_track import Waveform, decode_waveform
from mien.media.containers import clip_errors, open_media
from mien.media.errors import ClipError
from mien.media.packets import (
    ClipPackets,
    FrameTimes,
    audio_stream,
    frame_times,
    read_packets,
    stated_duration_s,
    times_of,
    video_stream,
)
from mien.media.storage import absolute, is_folder, is_remote
from mien.media.video import Damage, Picture, PictureFormat, decode_in_order, decode_wanted

ChooseFrames = Callable[[int], Sequence[int]]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    choose_frames: ChooseFrames
    start_s: float | None
    end_s: float | None
    max_side_px: int | None
    min_decoded_fraction: float
    num_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Video:
    """Decoded pictures of one clip, by their number in `times`."""

    times: FrameTimes
    indices: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    """Numbers of the frames that stand in for `indices`; the same in undamaged clips."""
    pictures: dict[int, Picture]
    refused: int


def decode_clip(
    uri: str,
    *,
    choose_frames: ChooseFrames,
    start_s: float | None = None,
    end_s: float | None = None,
    audio_uri: str | None = None,
    with_audio: bool = True,
    sample_rate_hz: int = 16_000,
    max_side_px: int | None = None,
    min_decoded_fraction: float = 0.5,
    num_threads: int = 1,
) -> DecodedClip:
    """Decode the frames that ``choose_frames`` asks for, and the clip's sound.

    Args:
        uri: A media file or a folder of pictures; a path or any fsspec URL.
        choose_frames: Gets the number of presentable frames in [start_s, end_s) and returns the
            wanted ones, non-decreasing, repeats allowed. It may be called twice, when packets
            announced more frames than the decoder gives out; the last call counts.
        start_s: Start of the clip in seconds since the file's first frame; None is the beginning.
        end_s: Its end; None is the end of the file.
        audio_uri: Sound that lies in a file of its own, on the same clock.
        with_audio: False leaves the sound out.
        sample_rate_hz: Of the sound.
        max_side_px: Shrinks pictures to this long side.
        min_decoded_fraction: A clip of which less can be decoded is an error.
        num_threads: Threads of the video decoder.

    Raises:
        ClipError: the clip cannot be used; `reason` says why.
        ValueError: ``choose_frames`` returned what the clip does not have.
    """
    location = absolute(uri)
    options = _Options(
        choose_frames=choose_frames,
        start_s=start_s,
        end_s=end_s,
        max_side_px=max_side_px,
        min_decoded_fraction=min_decoded_fraction,
        num_threads=num_threads,
    )
    with clip_errors(location):
        with_own_audio = with_audio and audio_uri is None
        if _is_folder(location):
            clip = _decode_folder(location, options)
        else:
            clip = _decode_file(location, options, with_own_audio, sample_rate_hz)
    if with_audio and audio_uri is not None:
        waveform, refused = _decode_audio_file(absolute(audio_uri), start_s, end_s, sample_rate_hz)
        clip = replace(clip, audio=waveform, refused_packets=clip.refused_packets + refused)
    return replace(clip, sample_rate_hz=sample_rate_hz)


def probe_clip(uri: str) -> ClipInfo:
    """Size, number of frames and sound of a file or folder; decodes one frame.

    Raises:
        ClipError: the clip cannot be used; `reason` says why.
    """
    location = absolute(uri)
    with clip_errors(location):
        if _is_folder(location):
            return _probe_folder(location)
        with open_media(location) as container:
            stream, sound, packets = _demux(container, location, num_threads=1)
            times = frame_times(container, stream, packets.video)
            first = next(decode_in_order(stream, packets.video, Damage()), None)
            if first is None:
                raise _nothing_decodable(location, stream)
            if times is None:
                times = _sequential_times(container, stream, packets.video, Damage()).times
            quarter_turns = round(first.rotation / 90) % 4
            sides = (first.width, first.height)
            width, height = sides[::-1] if quarter_turns % 2 else sides
            duration_s = float((times.end - times.zero) * times.time_base)
            return ClipInfo(
                num_frames=len(times.ticks),
                width=width,
                height=height,
                fps=len(times.ticks) / duration_s,
                rotation_deg=90 * quarter_turns,
                duration_s=duration_s,
                has_audio=sound is not None and bool(packets.audio),
                container=container.format.name,
                codec=stream.codec_context.name,
            )


def _is_folder(location: str) -> bool:
    # A bucket is asked only where the name does not look like a file's: that is one request less.
    last = location.rsplit("/", 1)[-1]
    return ("." not in last or not is_remote(location)) and is_folder(location)


def _demux(container: Any, location: str, num_threads: int) -> tuple[Any, Any | None, ClipPackets]:
    stream, sound = video_stream(container, location), audio_stream(container)
    stream.codec_context.thread_count = num_threads
    # Frame threads would give each thread its own idea of which frames are skipped.
    stream.codec_context.thread_type = "SLICE"
    return stream, sound, read_packets(container, stream, sound)


def _decode_file(
    location: str, options: _Options, with_audio: bool, sample_rate_hz: int
) -> DecodedClip:
    with open_media(location) as container:
        stream, sound, packets = _demux(container, location, options.num_threads)
        _check_coverage(container, stream, packets, location, options)
        video = _decode_fast(container, stream, packets.video, location, options)
        if video is None:
            video = _decode_sequentially(location, options)
        clip = _assemble(video, options)
        if not with_audio or sound is None:
            return replace(clip, refused_packets=video.refused + packets.refused)
        start_s = float(video.times.zero * video.times.time_base) + (options.start_s or 0.0)
        waveform, refused = decode_waveform(
            sound,
            packets.audio,
            start_s=start_s,
            end_s=None if options.end_s is None else start_s + clip.duration_s,
            sample_rate_hz=sample_rate_hz,
        )
    refused += video.refused + packets.refused
    return replace(clip, audio=waveform, refused_packets=refused)


def _decode_fast(
    container: Any, stream: Any, packets: list[Any], location: str, options: _Options
) -> _Video | None:
    """The wanted frames only, or None if the packets do not tell the truth about the frames."""
    times = frame_times(container, stream, packets)
    if times is None:
        return None
    times = times.window(options.start_s, options.end_s)
    indices = _choose(options, len(times.ticks), location)
    number_of = {int(times.ticks[index]): int(index) for index in indices}
    damage = Damage()
    form = PictureFormat(max_side_px=options.max_side_px)
    pictures = decode_wanted(stream, packets, number_of.keys(), form, damage)
    if len(pictures) < len(number_of):
        return None
    return _Video(
        times=times,
        indices=indices,
        shown=indices,
        pictures={number_of[tick]: picture for tick, picture in pictures.items()},
        refused=damage.refused,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivered:
    """The frames that a full decode gives out."""

    times: FrameTimes
    """Of all frames that the clip should have."""
    ticks: npt.NDArray[np.int64]
    """Of those that were given out, in order."""
    refused: int


def _sequential_times(
    container: Any, stream: Any, packets: list[Any], damage: Damage
) -> _Delivered:
    """Decode everything, keep nothing but the frames' times."""
    ticks = [frame.pts for frame in decode_in_order(stream, packets, damage)]
    if not ticks:
        raise _nothing_decodable(str(container.name), stream)
    stated = frame_times(container, stream, packets)
    if damage.refused and stated is not None and set(ticks) <= set(stated.ticks.tolist()):
        times = stated
    elif stated is not None and all(b > a for a, b in itertools.pairwise(ticks)):
        times = times_of(stream, ticks, {})
    else:
        ticks = _counted_ticks(stream, packets, len(ticks))
        times = times_of(stream, ticks, {})
    return _Delivered(times=times, ticks=np.asarray(ticks, dtype=np.int64), refused=damage.refused)


def _counted_ticks(stream: Any, packets: list[Any], num_frames: int) -> list[int]:
    """Times of frames whose container gives none: one frame for each slot of the file."""
    slots = sorted({packet.dts for packet in packets if packet.dts is not None})
    if len(slots) == num_frames:
        return slots
    rate = stream.average_rate or stream.guessed_rate or 25
    return [round(index / rate / stream.time_base) for index in range(num_frames)]


def _decode_sequentially(location: str, options: _Options) -> _Video:
    """The wanted frames from a full decode: once to count, once to convert."""
    with open_media(location) as container:
        stream, _, packets = _demux(container, location, options.num_threads)
        delivered = _sequential_times(container, stream, packets.video, Damage())
    times = delivered.times.window(options.start_s, options.end_s)
    inside = np.flatnonzero(np.isin(delivered.ticks, times.ticks))
    _check_decodable(len(inside), len(times.ticks), location, options)
    indices = _choose(options, len(times.ticks), location)
    numbers = np.searchsorted(times.ticks, delivered.ticks[inside])
    nearest = [int(np.argmin(np.abs(numbers - index))) for index in indices]
    shown = numbers[nearest]
    wanted = dict(zip(inside[nearest].tolist(), shown.tolist(), strict=True))
    form = PictureFormat(max_side_px=options.max_side_px)
    pictures: dict[int, Picture] = {}
    with open_media(location) as container:
        stream, _, packets = _demux(container, location, options.num_threads)
        for ordinal, frame in enumerate(decode_in_order(stream, packets.video, Damage())):
            if ordinal in wanted:
                pictures[wanted[ordinal]] = form.picture(frame)
            if len(pictures) == len(wanted):
                break
    return _Video(
        times=times, indices=indices, shown=shown, pictures=pictures, refused=delivered.refused
    )


def _assemble(video: _Video, options: _Options) -> DecodedClip:
    start_s = options.start_s or 0.0
    file_end_s = float((video.times.end - video.times.zero) * video.times.time_base)
    end_s = file_end_s if options.end_s is None else min(options.end_s, file_end_s)
    seconds = video.times.seconds(video.times.ticks)[video.shown] - start_s
    return DecodedClip(
        frames_THWC=np.stack([video.pictures[int(number)] for number in video.shown]),
        frame_times_s=np.maximum(seconds, 0.0),
        frame_indices=video.indices,
        audio=None,
        sample_rate_hz=0,
        num_source_frames=len(video.times.ticks),
        refused_packets=video.refused,
        duration_s=end_s - start_s,
    )


def _choose(options: _Options, num_source: int, location: str) -> npt.NDArray[np.int64]:
    if num_source == 0:
        window = f"[{options.start_s or 0} s, {options.end_s or 'end'})"
        raise ClipError(
            "too_few_frames",
            f"{location} shows no frame in {window}. Check start_s and end_s of the manifest "
            "against the file's length.",
        )
    indices = np.asarray(options.choose_frames(num_source), dtype=np.int64)
    inside = indices.ndim == 1 and len(indices) > 0
    if not inside or indices[0] < 0 or indices[-1] >= num_source or np.any(np.diff(indices) < 0):
        raise ValueError(
            f"choose_frames({num_source}) returned {indices.tolist()}; expected at least one frame "
            f"number, non-decreasing, from 0 to {num_source - 1}"
        )
    return indices


def _check_coverage(
    container: Any, stream: Any, packets: ClipPackets, location: str, options: _Options
) -> None:
    """Raise if the file ends long before its header says."""
    promised_s = stated_duration_s(container, stream)
    start_s = options.start_s or 0.0
    if promised_s is None or (options.end_s or promised_s) <= start_s:
        return
    wanted_s = min(promised_s, options.end_s or promised_s) - start_s
    origin_s = (container.start_time or 0) / 1e6
    readable_s = min(packets.end_s - origin_s, start_s + wanted_s) - start_s
    if wanted_s > 0 and readable_s < options.min_decoded_fraction * wanted_s:
        raise ClipError(
            "truncated",
            f"{location} should last {promised_s:.2f} s, but only {max(0.0, packets.end_s):.2f} s "
            "of it can be read: the file was cut off. Copy or download it again.",
        )


def _check_decodable(num_decoded: int, num_source: int, location: str, options: _Options) -> None:
    if num_source and num_decoded < max(1, options.min_decoded_fraction * num_source):
        raise ClipError(
            "truncated",
            f"only {num_decoded} of {num_source} frames of {location} can be decoded; expected at "
            f"least {options.min_decoded_fraction:.0%}. The file is damaged: copy it again.",
        )


def _nothing_decodable(location: str, stream: Any) -> ClipError:
    return ClipError(
        "truncated",
        f"no frame of {location} can be decoded ({stream.codec_context.name}); the file is damaged "
        "or cut off. Copy or download it again.",
    )


def _decode_audio_file(
    location: str, start_s: float | None, end_s: float | None, sample_rate_hz: int
) -> tuple[Waveform | None, int]:
    with clip_errors(location), open_media(location) as container:
        sound = audio_stream(container)
        if sound is None:
            raise ClipError(
                "bad_audio",
                f"{location} holds no sound that can be decoded; correct audio_uri or leave it "
                "empty.",
            )
        packets = read_packets(container, None, sound)
        zero_s = (container.start_time or 0) / 1e6
        waveform, refused = decode_waveform(
            sound,
            packets.audio,
            start_s=zero_s + (start_s or 0.0),
            end_s=None if end_s is None else zero_s + end_s,
            sample_rate_hz=sample_rate_hz,
        )
    return waveform, refused + packets.refused


def _decode_folder(folder: str, options: _Options) -> DecodedClip:
    # Here and not on top: only clips that are folders need Pillow.
    from mien.media import image_folder

    pictures = image_folder.list_pictures(folder)
    times = image_folder.folder_times(len(pictures)).window(options.start_s, options.end_s)
    indices = _choose(options, len(times.ticks), folder)
    shown, decoded, refused = image_folder.read_nearest(
        [pictures[tick] for tick in times.ticks], indices, options.max_side_px
    )
    _check_decodable(len(pictures) - refused, len(pictures), folder, options)
    video = _Video(times=times, indices=indices, shown=shown, pictures=decoded, refused=refused)
    return _assemble(video, options)


def _probe_folder(folder: str) -> ClipInfo:
    from mien.media import image_folder

    pictures = image_folder.list_pictures(folder)
    height, width = image_folder.read_picture(pictures[0]).shape[:2]
    return ClipInfo(
        num_frames=len(pictures),
        width=width,
        height=height,
        fps=image_folder.DEFAULT_FPS,
        rotation_deg=0,
        duration_s=len(pictures) / image_folder.DEFAULT_FPS,
        has_audio=False,
        container="folder",
        codec=pictures[0].rsplit(".", 1)[-1].lower(),
    )
