"""One clip's anonymous copy: read in pieces, everybody but one person hidden, written anew.

Shapes: T frames, H W pixels, C channels, N samples.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags

from mien.clips.anonymise_pictures import hide, show_only, without
from mien.clips.anonymise_sound import shift_pitch
from mien.clips.manifest import ClipRef
from mien.media.decode import DecodedClip, decode_clip
from mien.media.faces import Face, FaceDetector, FaceRule, FaceTracker, align, choose_track
from mien.media.faces.select import box_in_px, check_rule

Form = Literal["crops", "video"]
Sound = Literal["keep", "drop", "pitch_shift"]
Frame = npt.NDArray[np.uint8]
Waveform = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 48_000
_TICKS_A_SECOND = 90_000
_FIRST_PIECE_FRAMES = 32
_MEMORY_BYTES = 2**28
_VIDEO_OPTIONS = {"preset": "veryfast", "crf": "17"}
_SOUND_BITS_A_SECOND = 96_000


class NoFaceError(ValueError):
    """The person is in no frame, so that there is nothing to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """What a copy shows and plays."""

    form: Form = "crops"
    """Aligned crops of the face, or the whole picture with everything else hidden."""
    sound: Sound = "keep"
    face_rule: FaceRule = "largest"
    """Whose face it is, if there are several."""
    size_px: int = 224
    """Side of the crops; even."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousClip:
    """A copy in memory."""

    mp4: bytes
    num_frames: int
    num_with_face: int


@dataclass(frozen=True, slots=True)
class _FrameFaces:
    person: Face | None
    others: list[Face]


def anonymous_copy(
    ref: ClipRef, options: CopyOptions, detector: FaceDetector, *, semitones: float = 0.0
) -> AnonymousClip:
    """A clip as an MP4 file in which nothing but one face can be seen.

    Frames keep their times. A frame in which the person is not found is hidden as a whole.

    Args:
        ref: The clip; `face_box` is used by the rule ``given_box``.
        options: What is shown and played.
        detector: Finds the faces.
        semitones: By how much the voice is shifted, if it is.

    Raises:
        ClipError: the clip can't be decoded.
        NoFaceError: the person is in no frame.
        ValueError: the rule needs a box that the clip does not have.
    """
    check_rule(options.face_rule, ref.face_box)
    clip = _ClipInPieces(ref, with_sound=options.sound != "drop")
    faces_T = _person_and_others(clip, options.face_rule, ref.face_box, detector)
    num_with_face = sum(faces.person is not None for faces in faces_T)
    if num_with_face == 0:
        raise NoFaceError(f"no frame shows the face that the rule {options.face_rule} asks for")
    sound_N = clip.sound_N
    if sound_N is not None and options.sound == "pitch_shift":
        sound_N = shift_pitch(sound_N, SAMPLE_RATE_HZ, semitones)
    pictures = _shown(clip, faces_T, options)
    mp4 = encode_mp4(pictures, clip.times_s, sound_N)
    return AnonymousClip(mp4=mp4, num_frames=len(faces_T), num_with_face=num_with_face)


class _ClipInPieces:
    """All frames of a clip, twice if need be, however long it is.

    A clip that fits into memory is decoded once.
    """

    def __init__(self, ref: ClipRef, *, with_sound: bool) -> None:
        self._ref = ref
        self._with_sound = with_sound
        self._kept: list[Frame] | None = None
        self.times_s: list[float] = []
        """Of the frames, the first one's is 0; known when all frames were read once."""
        self.sound_N: Waveform | None = None
        """From the first frame on."""

    def frames(self) -> Iterator[Frame]:
        """Every frame [H, W, 3] in order of time."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Frame] = []
        num_bytes = 0
        times_s: list[float] = []
        for piece in self._pieces():
            times_s += piece.frame_times_s.tolist()
            num_bytes += piece.frames_THWC.nbytes
            kept = [*kept, *piece.frames_THWC] if num_bytes <= _MEMORY_BYTES else []
            if piece.audio is not None:
                self.sound_N = piece.audio[round(times_s[0] * SAMPLE_RATE_HZ) :]
            yield from piece.frames_THWC
        self.times_s = [time_s - times_s[0] for time_s in times_s]
        self._kept = kept if num_bytes <= _MEMORY_BYTES else None

    def _pieces(self) -> Iterator[DecodedClip]:
        """The clip's frames in pieces of bounded size; the sound comes with the first one."""
        start, count, total = 0, _FIRST_PIECE_FRAMES, 1
        while start < total:
            piece = decode_clip(
                self._ref.uri,
                choose_frames=partial(_from_to, start, start + count),
                start_s=self._ref.start_s,
                end_s=self._ref.end_s,
                audio_uri=self._ref.audio_uri,
                with_audio=self._with_sound and start == 0,
                sample_rate_hz=SAMPLE_RATE_HZ,
            )
            yield piece
            start, total = start + len(piece.frames_THWC), piece.num_source_frames
            count = max(1, _MEMORY_BYTES // 4 // piece.frames_THWC[0].nbytes)


def _from_to(start: int, stop: int, num_frames: int) -> list[int]:
    return list(range(min(start, num_frames - 1), min(stop, num_frames)))


def _person_and_others(
    clip: _ClipInPieces,
    rule: FaceRule,
    face_box: Sequence[float] | None,
    detector: FaceDetector,
) -> list[_FrameFaces]:
    """In each frame, the face of the person whom a rule chooses, and everybody else's."""
    tracker = FaceTracker()
    faces_T: list[list[Face]] = []
    box = None
    for index, frame in enumerate(clip.frames()):
        if index == 0 and face_box is not None:
            box = box_in_px(face_box, *frame.shape[:2])
        faces_T.append(detector.detect(frame))
        tracker.update(index, faces_T[-1])
    chosen = choose_track(tracker.tracks, rule, box)
    persons = chosen.in_frames(len(faces_T)) if chosen else [None] * len(faces_T)
    return [
        _FrameFaces(person, [face for face in faces if face is not person])
        for person, faces in zip(persons, faces_T, strict=True)
    ]


def _shown(
    clip: _ClipInPieces, faces_T: Sequence[_FrameFaces], options: CopyOptions
) -> Iterator[Frame]:
    """The copy's pictures."""
    found = np.flatnonzero([faces.person is not None for faces in faces_T])
    for index, (frame, faces) in enumerate(zip(clip.frames(), faces_T, strict=True)):
        if options.form == "video":
            yield show_only(frame, faces.person, faces.others)
            continue
        nearest = faces_T[found[np.argmin(np.abs(found - index))]].person
        assert nearest is not None
        crop = align(without(frame, faces.others), nearest.landmarks, options.size_px)
        yield crop if faces.person is not None else hide(crop)


def encode_mp4(
    pictures: Iterable[Frame], times_s: Sequence[float], sound_N: Waveform | None
) -> bytes:
    """H.264 and AAC in a file that says nothing of where it comes from.

    Args:
        pictures: RGB [H, W, 3], all of one size; an odd last row or column is left out.
        times_s: When each is shown, increasing; the first at 0.
        sound_N: Mono at `SAMPLE_RATE_HZ`, from the first picture on; None writes no sound.
    """
    file = io.BytesIO()
    # bitexact: no name and version of the library that wrote the file.
    with av.open(file, "w", format="mp4", options={"fflags": "bitexact"}) as container:
        video = container.add_stream("libx264", rate=25, options=dict(_VIDEO_OPTIONS))
        video.codec_context.time_base = Fraction(1, _TICKS_A_SECOND)
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        audio = None
        if sound_N is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            audio.bit_rate = _SOUND_BITS_A_SECOND
            audio.codec_context.flags |= Flags.bitexact
        _encode_pictures(container, video, pictures, times_s)
        if audio is not None and sound_N is not None:
            _encode_sound(container, audio, sound_N)
    return file.getvalue()


def _encode_pictures(
    container: Any, stream: Any, pictures: Iterable[Frame], times_s: Sequence[float]
) -> None:
    without_notes = None
    tick = -1
    for index, picture in enumerate(pictures):
        even_HWC = np.ascontiguousarray(
            picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2]
        )
        if index == 0:
            stream.height, stream.width = even_HWC.shape[:2]
            # x264 writes its settings into a note (SEI, type 6) of the first picture.
            without_notes = BitStreamFilterContext("filter_units=remove_types=6", stream)
        frame = av.VideoFrame.from_ndarray(even_HWC, format="rgb24")
        frame = frame.reformat(format="yuv420p", threads=1)
        # Stand-ins for damaged frames have their neighbours' times.
        tick = max(tick + 1, round(times_s[index] * _TICKS_A_SECOND))
        frame.pts, frame.time_base = tick, Fraction(1, _TICKS_A_SECOND)
        _mux(container, without_notes, stream.encode(frame))
    _mux(container, without_notes, stream.encode(None))


def _mux(container: Any, bit_stream_filter: Any, packets: Iterable[Any]) -> None:
    for packet in packets:
        for filtered in bit_stream_filter.filter(packet):
            container.mux(filtered)


def _encode_sound(container: Any, stream: Any, sound_N: Waveform) -> None:
    frame = av.AudioFrame.from_ndarray(sound_N[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
