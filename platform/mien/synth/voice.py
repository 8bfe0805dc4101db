"""Speech from espeak-ng, whose library and data come with PyPI `espeakng-loader`.

The library is loaded through ctypes in retrieval mode, so that it writes into memory and needs no
sound device. It is not thread safe: one process speaks one text at a time. Its static variables
(the phase of the voice's flutter, among others) outlive `espeak_Terminate`, so that what was said
before would change what is said now; therefore it is unloaded after each text (some 4 ms).
"""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mien.synth.anatomy import SynthDataMissingError
from mien.synth.chance import generator
from mien.synth.plan import ClipPlan

SAMPLE_RATE_HZ = 22050
_AUDIO_OUTPUT_RETRIEVAL = 1
_EE_OK = 0
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1
_FADE_S = 0.03
_FULL_SPEECH_DB = -19.0
"""Level of speech at loudness 0 dB, below full scale."""

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class SpeechError(RuntimeError):
    """espeak-ng refused something; the message says what."""


class _Engine:
    """The freshly loaded library, for one text. A context manager, which unloads it."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("espeakng_loader")
        if spec is None or spec.origin is None:
            raise SynthDataMissingError(
                "the synthetic voices need the package 'espeakng-loader', which is not installed; "
                "type: pip install 'mien[synth]'"
            )
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._pieces: list[npt.NDArray[np.int16]] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only its address
        data = Path(espeakng_loader.get_data_path()).parent
        rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_RETRIEVAL, 500, str(data).encode(), 0)
        if rate != SAMPLE_RATE_HZ:
            self.close()
            raise SpeechError(
                f"espeak-ng started with {rate} Hz where {SAMPLE_RATE_HZ} Hz was expected; "
                "reinstall espeakng-loader (pip install --force-reinstall espeakng-loader)"
            )
        self._library.espeak_SetSynthCallback(self._callback)
        # The breath of the voices f2 and f3 is drawn at random, by default from the time of day.
        self._check(self._library.espeak_ng_SetRandSeed(ctypes.c_long(1)), "a seed")

    def __enter__(self) -> "_Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends espeak-ng and unloads it, with all its state."""
        self._library.espeak_Terminate()
        unload = ctypes.CDLL(None).dlclose
        unload.argtypes = [ctypes.c_void_p]
        unload(self._library._handle)

    def _collect(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: int) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(
        self, text: str, voice: str, pitch: float, pitch_range: float, rate_wpm: float
    ) -> npt.NDArray[np.float32]:
        """The whole text as samples in [-1, 1] at SAMPLE_RATE_HZ."""
        name = f"en-us+{voice}".encode()
        self._check(self._library.espeak_SetVoiceByName(name), f"the voice {name.decode()}")
        for parameter, value in (
            (_RATE, rate_wpm), (_VOLUME, 100), (_PITCH, pitch), (_RANGE, pitch_range),
        ):  # fmt: skip
            status = self._library.espeak_SetParameter(parameter, round(value), 0)
            self._check(status, f"parameter {parameter} = {value:.0f}")
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(data, len(data), 0, 0, 0, _CHARS_UTF8, None, None)
        self._check(status, f"the text {text!r}")
        self._check(self._library.espeak_Synchronize(), "to finish")
        if not self._pieces:
            raise SpeechError(f"espeak-ng said nothing for the text {text!r}")
        return np.concatenate(self._pieces).astype(np.float32) / 32768.0

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status != _EE_OK:
            raise SpeechError(f"espeak-ng refused {what} (status {status})")


def speak(plan: ClipPlan) -> npt.NDArray[np.float32]:
    """What the person says in a clip, also where the clip's audio is to be lost.

    Returns:
        Samples [N] in [-1, 1] at SAMPLE_RATE_HZ, exactly as long as the clip, without background
        noise. All zeros where the plan's audio is silent: then the person does not speak.

    Raises:
        SynthDataMissingError: `espeakng-loader` is not installed.
        SpeechError: espeak-ng refused the voice or the text.
    """
    length = round(plan.duration_s * SAMPLE_RATE_HZ)
    wave = np.zeros(length, np.float32)
    if plan.audio == "silent":
        return wave
    speech = plan.speech
    with _Engine() as engine:
        said = engine.say(
            speech.text, speech.voice, speech.pitch, speech.pitch_range, speech.rate_wpm
        )
    loud = np.abs(said) > 0.02
    said = said[int(np.argmax(loud)) :]
    level = np.sqrt(np.mean(said[np.abs(said) > 0.01] ** 2))
    gain = 10 ** ((_FULL_SPEECH_DB + speech.loudness_db) / 20) / level
    start = round(speech.start_s * SAMPLE_RATE_HZ)
    room = max(0, length - start)
    while said.size < room:
        said = np.concatenate([said, said])
    wave[start:] = gain * said[:room]
    wave *= _shake(length, speech.tremor, plan.seed)
    fade = min(round(_FADE_S * SAMPLE_RATE_HZ), length)
    wave[length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return np.clip(wave, -1, 1).astype(np.float32)


def _shake(length: int, depth: float, seed: int) -> npt.NDArray[np.float32]:
    """Amplitude of a shaking voice, between 1 - depth and 1."""
    phase, rate_hz = generator(seed, "tremor").uniform((0, 5.5), (2 * np.pi, 7.5))
    time = np.arange(length) / SAMPLE_RATE_HZ
    wave = 1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate_hz * time + phase))
    return np.asarray(wave, np.float32)


def record(plan: ClipPlan, wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int16] | None:
    """What the microphone of a clip hears: speech with background noise as 16-bit samples [N].

    None where the plan's audio is missing; zeros where it is silent.
    """
    if plan.audio == "missing":
        return None
    heard = wave
    if plan.audio == "speech":
        rng = generator(plan.seed, "microphone")
        hiss = rng.standard_normal(wave.size).astype(np.float32)
        heard = wave + np.float32(10 ** (plan.speech.background_db / 20)) * hiss
    return np.round(np.clip(heard, -1, 1) * 32767).astype(np.int16)


def mouth_envelope(
    wave: npt.NDArray[np.float32], num_frames: int, fps: int
) -> npt.NDArray[np.float32]:
    """How far speech opens the mouth in each frame, in [0, 1]: [num_frames].

    The root mean square of each frame's sound, against the clip's own loud frames, so that a quiet
    voice moves the jaw as well.
    """
    edges = np.round(np.arange(num_frames + 1) * SAMPLE_RATE_HZ / fps).astype(np.int64)
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    edges = np.minimum(edges, wave.size)
    rms = np.sqrt(np.maximum(energy[edges[1:]] - energy[edges[:-1]], 0) * fps / SAMPLE_RATE_HZ)
    loud = float(np.percentile(rms, 92))
    if loud < 1e-5:
        return np.zeros(num_frames, np.float32)
    return np.asarray(np.clip(rms / loud, 0, 1), np.float32)
