"""The sound of a clip: mixed, resampled, and on the clip's clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.media.audio_track import is_readable, resample
from mien.media.decode import DecodedClip, decode_clip
from mien.media.errors import ClipError


def heard(path: Path | str, **options: object) -> DecodedClip:
    return decode_clip(str(path), choose_frames=lambda num_source: [0], **options)


def write_sound(path: Path, samples: np.ndarray, codec: str, rate_hz: int, layout: str) -> Path:
    """A sound file of samples [C, N] in [-1, 1]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout=layout
        )
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format, frame_size=stream.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def click(rate_hz: int, at_s: float, duration_s: float = 2.4) -> np.ndarray:
    """A short burst around a time, [1, N]."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz - at_s
    burst = np.exp(-((times / 0.002) ** 2)) * np.cos(2 * np.pi * 1000 * times)
    return burst[None].astype(np.float32)


def test_channels_are_mixed_as_their_mean(films: SimpleNamespace, tmp_path: Path) -> None:
    left = films.tone(2.4, 16_000, hz=300)
    right = films.tone(2.4, 16_000, hz=700, level=0.25)
    path = films.write(
        tmp_path / "film.mkv",
        sound=np.stack([left, right]),
        sound_codec="pcm_f32le",
        sound_rate_hz=16_000,
    )
    clip = heard(path)
    assert clip.sample_rate_hz == 16_000
    assert clip.audio.dtype == np.float32
    np.testing.assert_allclose(clip.audio, (left + right) / 2, atol=1e-6)


def test_native_sound_is_the_first_channel_at_its_own_rate(
    films: SimpleNamespace, tmp_path: Path
) -> None:
    left = films.tone(2.4, 44_100, hz=300)
    path = films.write(
        tmp_path / "film.mkv",
        sound=np.stack([left, films.tone(2.4, 44_100, hz=700)]),
        sound_codec="pcm_f32le",
        sound_rate_hz=44_100,
    )
    clip = heard(path, sample_rate_hz=None)
    assert clip.sample_rate_hz == 44_100
    np.testing.assert_array_equal(clip.audio, left)
    window = heard(path, sample_rate_hz=None, start_s=0.4, end_s=0.8)
    np.testing.assert_array_equal(window.audio, left[round(0.4 * 44_100) : round(0.8 * 44_100)])
    beside = heard(path, sample_rate_hz=None, audio_uri=str(path))
    np.testing.assert_array_equal(beside.audio, left)


def test_six_channels(films: SimpleNamespace, tmp_path: Path) -> None:
    sound = np.stack([films.tone(2.4, 16_000, hz=200 + 100 * c, level=0.3) for c in range(6)])
    path = films.write(
        tmp_path / "film.mkv", sound=sound, sound_codec="pcm_f32le", sound_rate_hz=16_000
    )
    np.testing.assert_allclose(heard(path).audio, sound.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("codec", "suffix", "step"),
    [
        ("pcm_u8", "wav", 1 / 128),
        ("pcm_s16le", "wav", 1 / 32_768),
        ("pcm_s24le", "wav", 1e-6),
        ("pcm_s32le", "wav", 1e-6),
        ("pcm_f64le", "wav", 1e-6),
        ("flac", "flac", 1 / 32_768),
    ],
)
def test_every_sample_format_has_the_same_scale(
    codec: str, suffix: str, step: float, films: SimpleNamespace, tmp_path: Path
) -> None:
    film = films.write(tmp_path / "film.mp4")
    samples = np.stack([films.tone(2.4, 16_000, hz=300), films.tone(2.4, 16_000, hz=500)])
    path = write_sound(tmp_path / f"voice.{suffix}", samples, codec, 16_000, "stereo")
    clip = heard(film, audio_uri=str(path))
    np.testing.assert_allclose(clip.audio, samples.mean(axis=0), atol=step)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_pitch_level_and_length(rate_hz: int, films: SimpleNamespace) -> None:
    resampled = resample(films.tone(3.0, rate_hz, hz=1000), rate_hz, 16_000)
    expected = films.tone(3.0, 16_000, hz=1000)
    assert resampled.shape == expected.shape
    np.testing.assert_allclose(resampled[200:-200], expected[200:-200], atol=2e-3)


def test_resampling_in_pieces_leaves_no_seam(
    films: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = films.tone(1.0, 44_100)
    whole = resample(waveform, 44_100, 16_000)
    monkeypatch.setattr("mien.media.audio_track._CHUNK", 1000)
    np.testing.assert_allclose(resample(waveform, 44_100, 16_000), whole, atol=1e-6)


@pytest.mark.parametrize("num_samples", [0, 1, 2, 5])
def test_very_short_sound(num_samples: int) -> None:
    resampled = resample(np.ones(num_samples, dtype=np.float32), 44_100, 16_000)
    assert len(resampled) == round(num_samples * 16_000 / 44_100)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [
        ("film.mp4", "aac", 44_100),
        ("film.mkv", "aac", 44_100),
        ("film.mp4", "aac", 8_000),
        ("film.mkv", "libopus", 48_000),
        ("film.mkv", "libmp3lame", 44_100),
        ("film.ts", "aac", 48_000),
        ("film.mpg", "mp2", 44_100),
        ("film.avi", "libmp3lame", 44_100),
        ("film.flv", "aac", 44_100),
    ],
)
@pytest.mark.parametrize("start_s", [None, 0.6])
def test_a_click_is_heard_when_it_was_made(
    name: str,
    codec: str,
    rate_hz: int,
    start_s: float | None,
    films: SimpleNamespace,
    tmp_path: Path,
) -> None:
    video = {"mpg": "mpeg1video", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
    path = films.write(
        tmp_path / name,
        codec=video,
        options={"g": "12"},
        sound=click(rate_hz, 1.0),
        sound_codec=codec,
        sound_rate_hz=rate_hz,
    )
    clip = heard(path, start_s=start_s)
    peak_s = np.argmax(np.abs(clip.audio)) / 16_000
    # MP3 in AVI carries no word of the encoder's delay of 1105 samples.
    late_s = 1105 / rate_hz if name == "film.avi" else 0.0
    assert peak_s == pytest.approx(1.0 - (start_s or 0.0) + late_s, abs=0.0015)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_sound_that_begins_late_is_preceded_by_silence(
    name: str, films: SimpleNamespace, tmp_path: Path
) -> None:
    path = films.write(
        tmp_path / name,
        sound=films.tone(1.6, 16_000)[None],
        sound_rate_hz=16_000,
        sound_start_s=0.8,
    )
    audio = heard(path).audio
    assert np.abs(audio[: round(0.73 * 16_000)]).max() < 1e-3
    assert np.abs(audio[round(0.82 * 16_000) : round(2.3 * 16_000)]).max() > 0.45
    inside = heard(path, start_s=0.4, end_s=1.2).audio
    np.testing.assert_allclose(inside, audio[round(0.4 * 16_000) : round(1.2 * 16_000)], atol=1e-4)


def test_sound_that_ends_early_is_followed_by_silence_in_a_window(
    films: SimpleNamespace, tmp_path: Path
) -> None:
    path = films.write(
        tmp_path / "film.mkv",
        sound=films.tone(1.0, 16_000)[None],
        sound_codec="pcm_s16le",
        sound_rate_hz=16_000,
    )
    audio = heard(path, start_s=0.5, end_s=2.0).audio
    assert audio.shape == (24_000,)
    assert np.abs(audio[:8000]).max() > 0.45
    assert not audio[8000:].any()
    assert not heard(path, start_s=1.2, end_s=2.0).audio.any()


def test_a_window_holds_the_sound_of_its_time(films: SimpleNamespace, tmp_path: Path) -> None:
    sweep = (0.5 * np.sin(np.cumsum(np.linspace(0.05, 0.8, 8 * 16_000)))).astype(np.float32)
    path = films.write(
        tmp_path / "film.mov",
        num_frames=200,
        options={"g": "12"},
        sound=sweep[None],
        sound_codec="pcm_s16le",
        sound_rate_hz=16_000,
    )
    for start_s, end_s in ((0.0, 1.0), (1.0, 3.0), (5.5, 6.0), (7.0, 9.0)):
        audio = heard(path, start_s=start_s, end_s=end_s).audio
        expected = sweep[round(start_s * 16_000) : round(end_s * 16_000)]
        np.testing.assert_allclose(audio, expected, atol=1 / 32_768)


@pytest.fixture(scope="module", params=[8_000, 44_100, 48_000, 22_050])
def noise_film(
    request: pytest.FixtureRequest, films: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray]:
    rate_hz = request.param
    noise = 0.3 * np.random.default_rng(rate_hz).standard_normal((1, 6 * rate_hz))
    path: Path = films.write(
        tmp_path_factory.mktemp("noise") / "film.mov",
        num_frames=150,
        options={"g": "12"},
        sound=noise.clip(-1, 1).astype(np.float32),
        sound_codec="pcm_s16le",
        sound_rate_hz=rate_hz,
    )
    audio = heard(path).audio
    assert audio is not None
    return path, audio


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start_ms=st.integers(0, 5900), duration_ms=st.integers(40, 3000))
def test_any_window_has_the_samples_of_the_whole(
    noise_film: tuple[Path, np.ndarray], start_ms: int, duration_ms: int
) -> None:
    """To the bit, its edges included, though resampling needs what lies beyond them."""
    path, whole = noise_film
    stop_ms = min(start_ms + duration_ms, 6000)
    audio = heard(path, start_s=start_ms / 1000, end_s=stop_ms / 1000).audio
    first = 16 * start_ms
    assert len(audio) == pytest.approx(16 * (stop_ms - start_ms), abs=1)
    np.testing.assert_array_equal(audio, whole[first : first + len(audio)])


def test_a_window_of_aac_equals_the_whole(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(
        tmp_path / "film.mp4",
        num_frames=200,
        options={"g": "12"},
        sound=films.tone(8.0, 16_000)[None],
        sound_rate_hz=16_000,
    )
    whole = heard(path).audio
    audio = heard(path, start_s=6.0, end_s=7.0).audio
    np.testing.assert_allclose(audio, whole[96_000:112_000], atol=1e-3)


def test_no_sound(films: SimpleNamespace, tmp_path: Path) -> None:
    assert heard(films.write(tmp_path / "silent.mp4")).audio is None
    path = films.write(
        tmp_path / "film.mp4", sound=films.tone(2.4, 16_000)[None], sound_rate_hz=16_000
    )
    assert heard(path, with_audio=False).audio is None


def test_sound_of_its_own_file(films: SimpleNamespace, tmp_path: Path) -> None:
    film = films.write(tmp_path / "film.mp4")
    voice = films.tone(2.4, 16_000)
    path = write_sound(tmp_path / "voice.wav", voice[None], "pcm_s16le", 16_000, "mono")
    clip = heard(film, audio_uri=str(path), start_s=0.8, end_s=1.6)
    np.testing.assert_allclose(clip.audio, voice[12_800:25_600], atol=1 / 32_768)
    with pytest.raises(ClipError, match="holds no sound") as caught:
        heard(film, audio_uri=str(film))
    assert caught.value.reason == "bad_audio"
    with pytest.raises(ClipError, match=r"none\.wav") as caught:
        heard(film, audio_uri=str(tmp_path / "none.wav"))
    assert caught.value.reason == "missing_file"


def test_damaged_sound_leaves_the_pictures_alone(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(
        tmp_path / "film.mp4",
        options={"g": "12"},
        sound=films.tone(2.4, 44_100)[None],
        sound_first=True,
    )
    whole = decode_clip(str(path), choose_frames=range)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    rng = np.random.default_rng(0)
    sound = path.read_bytes()
    for _ in range(10):
        data = bytearray(sound)
        for at, size in places:
            data[at + int(rng.integers(size))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        clip = decode_clip(str(path), choose_frames=range)
        np.testing.assert_array_equal(clip.frames_THWC, whole.frames_THWC)
        np.testing.assert_array_equal(clip.frame_times_s, whole.frame_times_s)
        assert clip.audio is None or len(clip.audio) <= len(whole.audio) + 1024


def test_damaged_sound_is_counted_and_silent(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(
        tmp_path / "film.mkv",
        sound=films.tone(2.4, 48_000)[None],
        sound_codec="flac",
        sound_rate_hz=48_000,
    )
    whole = heard(path)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    at, size = places[len(places) // 2]
    data[at + 12 : at + size] = bytes(size - 12)
    path.write_bytes(data)
    clip = heard(path)
    assert clip.refused_packets >= 1
    assert len(clip.audio) == pytest.approx(len(whole.audio), abs=16_000 // 25)
    np.testing.assert_allclose(clip.audio[:8000], whole.audio[:8000], atol=1e-6)
    np.testing.assert_allclose(clip.audio[-8000:], whole.audio[-8000:], atol=1e-6)


@pytest.mark.parametrize(("num_channels", "is_read"), [(8, True), (16, False)])
def test_more_than_eight_planar_channels_are_not_touched(num_channels: int, is_read: bool) -> None:
    """PyAV reads beyond the planes of such frames, which damaged AAC brings about."""
    for sample_format, expected in (("fltp", is_read), ("flt", True)):
        frame = av.AudioFrame(format=sample_format, layout=f"{num_channels}c", samples=8000)
        frame.sample_rate = 16_000
        assert frame.layout.nb_channels == num_channels
        assert is_readable(frame) is expected
