"""Writes one clip as mp4: H.264 and AAC, from one thread, so that the same clip gives the same
bytes."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from mien.synth.voice import SAMPLE_RATE_HZ

_VIDEO_OPTIONS = {
    "preset": "veryfast",
    "crf": "21",
    "threads": "1",
    # x264's look-ahead reads memory that it has not written: with it, the same pictures gave other
    # bytes in about one run of ten. Without it, all decisions are fixed.
    "x264-params": "rc-lookahead=0:mbtree=0:scenecut=0:b-adapt=0:keyint=25",
}
_AUDIO_BIT_RATE = 64_000


def write_mp4(
    path: Path,
    frames: npt.NDArray[np.uint8],
    fps: int,
    sound: npt.NDArray[np.int16] | None,
) -> None:
    """Writes a clip; the file appears under its name only when it is whole.

    Args:
        path: Ends in .mp4; its folder exists.
        frames: [T, H, W, 3] RGB, H and W even.
        fps: Frames a second.
        sound: [N] mono at `voice.SAMPLE_RATE_HZ`; None writes no audio stream.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            _encode(container, frames, fps, sound)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _encode(
    container: av.container.OutputContainer,
    frames: npt.NDArray[np.uint8],
    fps: int,
    sound: npt.NDArray[np.int16] | None,
) -> None:
    video = container.add_stream("libx264", rate=fps, options=dict(_VIDEO_OPTIONS))
    video.height, video.width = frames.shape[1:3]
    video.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 1
    audio = None
    if sound is not None:
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        audio.bit_rate = _AUDIO_BIT_RATE
    for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", threads=1)
        frame.pts, frame.time_base = index, Fraction(1, fps)
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    if audio is not None and sound is not None:
        chunk = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        chunk.sample_rate, chunk.pts = SAMPLE_RATE_HZ, 0
        container.mux(audio.encode(chunk))
        container.mux(audio.encode(None))
