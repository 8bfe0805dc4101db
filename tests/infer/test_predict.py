"""Prediction of real films with a method whose answer can be read off the picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from infer.colour_method import BLUE, COLOURS, GREEN, RED, ColourMethod

from mien.clips.manifest import ClipRef
from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import BatchedNetwork, BrokenNetworkError
from mien.infer.predict import FilePrediction, predict_file
from mien.infer.rows import Columns, FrameRow, WindowRow, table_writer
from mien.infer.windows import Windowing
from mien.media.errors import ClipError
from mien.stream.batches import collate
from mien.stream.load import ClipRequest, load_clip
from mien_models.contract import ClipBatch, Method, Prediction

Film = Callable[..., Path]


def predict(
    path: Path, *, with_audio: bool = True, faces: bool = False, **windowing: Any
) -> FilePrediction:
    method = ColourMethod(with_audio=with_audio, align_faces=faces)
    return predict_file(
        path,
        method=method,
        label_set=COLOURS,
        stream=method.prediction_stream(),
        settings=FilmSettings(windowing=Windowing(**windowing)),
    )


def labels(found: FilePrediction) -> list[str | None]:
    return [window.best(COLOURS.classes)[0] for window in found.windows]


def read(
    path: Path, *, faces: bool = True, **settings: Any
) -> tuple[list[WindowRow], list[FrameRow]]:
    method = ColourMethod(align_faces=faces)
    with BatchedNetwork(method, method.prediction_stream(), batch_size=4) as network:
        parts = list(FilmReading(str(path), network, FilmSettings(**settings)).parts())
    windows = [row for part in parts for row in part.windows]
    return windows, [row for part in parts for row in part.frames]


@pytest.fixture(scope="module")
def talker(synth_manifest: Path) -> Path:
    return sorted(synth_manifest.parent.rglob("*.mp4"))[0]


@pytest.fixture(scope="module")
def two_talkers(synth_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people side by side, one of them gone in the middle third."""
    path = tmp_path_factory.mktemp("two") / "two.mkv"
    one, other = (
        [np.kron(picture, np.ones((3, 3, 1), np.uint8)) for picture in _pictures(film)]
        for film in sorted(synth_manifest.parent.rglob("*.mp4"))[:2]
    )
    length = min(len(one), len(other))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 384, 192, "yuv420p"
        for index in range(3 * length):
            right = other[index % length]
            right = np.zeros_like(right) if index // length == 1 else right
            picture = np.ascontiguousarray(np.concatenate([one[index % length], right], axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _pictures(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def test_short_file_is_one_row(film: Film) -> None:
    found = predict(film([GREEN] * 2))
    (window,) = found.windows
    assert labels(found) == ["green"]
    assert sum(window.probabilities) == pytest.approx(1)
    assert (window.start_s, window.has_audio, window.faces) == (0.0, True, None)
    assert window.end_s == pytest.approx(2.0, abs=0.01)


def test_every_window_sees_its_own_pictures(film: Film) -> None:
    found = predict(film([RED, RED, BLUE, BLUE, GREEN, GREEN, RED]), window_s=2.0)
    assert labels(found) == ["red", "blue", "green", "red"]
    assert [window.start_s for window in found.windows] == [0, 2, 4, 6]
    assert found.windows[-1].end_s == pytest.approx(7.0, abs=0.01)
    assert labels(predict(film([RED] * 6 + [BLUE] * 6))) == ["red", "red", "blue", "blue"]


def test_frames_have_the_mean_of_their_windows(film: Film) -> None:
    windowing = Windowing(window_s=2.0, step_s=1.0)
    windows, frames = read(film([RED, BLUE, BLUE, GREEN]), faces=False, windowing=windowing)
    assert [row.frame for row in frames] == list(range(40))
    assert [row.time_s for row in frames] == pytest.approx([index / 10 for index in range(40)])
    first, second = (np.array(row.probabilities) for row in windows[:2])
    assert frames[5].probabilities == pytest.approx(first)
    assert frames[15].probabilities == pytest.approx((first + second) / 2)
    assert frames[39].probabilities == pytest.approx(windows[-1].probabilities)


def test_the_network_sees_what_training_shows_it(talker: Path) -> None:
    """Frames, crops and sound are those of the stream, to the bit."""
    seen: list[ClipBatch] = []

    class Notes(ColourMethod):
        def predict(self, batch: ClipBatch) -> Prediction:
            seen.append(batch)
            return super().predict(batch)

    method = Notes(align_faces=True)
    stream = method.prediction_stream()
    predict_file(talker, method=method, label_set=COLOURS, stream=stream)
    request = ClipRequest(
        ref=ClipRef(clip_id="clip", uri=str(talker)),
        spec=stream.for_prediction("all"),
        label_set=COLOURS,
        subject=-1,
        seed=0,
    )
    expected = collate([load_clip(request)], request.spec)
    (batch,) = seen
    assert bool(expected.views[0].has_face_BT.all())
    assert torch.equal(batch.video_BTCHW, expected.video_BTCHW)
    assert torch.equal(batch.views[0].frame_times_BT, expected.views[0].frame_times_BT)
    assert batch.audio_BFM is not None
    assert expected.audio_BFM is not None
    assert torch.equal(batch.audio_BFM, expected.audio_BFM)


def test_several_people(two_talkers: Path) -> None:
    windows, frames = read(two_talkers, windowing=Windowing(window_s=0.6))
    by_frame: dict[int, set[int | None]] = {}
    for row in frames:
        by_frame.setdefault(row.frame, set()).add(row.track)
        assert row.has_face
        assert row.box is not None
        assert row.probabilities
    length = len(by_frame) // 3
    everybody = set().union(*by_frame.values())
    assert len(everybody) == 2  # the one who came back is still the same
    assert all(len(by_frame[index]) == 2 for index in range(length))
    assert all(len(by_frame[index]) == 1 for index in range(length + 1, 2 * length - 1))
    assert {row.track for row in windows if row.start_s == 0} == everybody
    alone, _ = read(two_talkers, windowing=Windowing(window_s=0.6), max_people=1)
    assert len(alone) == len({row.start_s for row in windows})


def test_nobody_is_no_label_and_no_lost_row(film: Film) -> None:
    windows, frames = read(film([RED]))
    assert [(row.probabilities, row.reason, row.track) for row in windows] == [
        ((), "no_face", None)
    ]
    assert [(row.frame, row.has_face) for row in frames] == [(index, False) for index in range(10)]
    found = predict(film([RED]), faces=True)
    assert found.warnings == ("nobody's face was found in 1 of 1 windows; they have no label",)
    assert "(no_face)" in found.to_markdown()


def test_missing_sound_is_said(film: Film) -> None:
    silent = predict(film([RED], tone=False))
    assert silent.warnings == (
        "the file has no sound that can be decoded; the labels rest on the picture alone",
    )
    assert predict(film([RED], tone=False), with_audio=False).warnings == ()
    loud = predict(film([RED], name="loud.mp4"))
    assert max(loud.windows[0].probabilities) > max(silent.windows[0].probabilities)


def test_effects_of_sound_and_picture(film: Film) -> None:
    """By hand: sound doubles the logits, and a black picture makes all classes equal."""
    method = ColourMethod(align_faces=False)
    stream = method.prediction_stream()
    path = str(film([RED]))
    with BatchedNetwork(method, stream, with_effects=True) as network:
        (part, _) = FilmReading(path, network).parts()
    (row,) = part.windows
    doubled = np.log(np.array(row.probabilities))
    plain = doubled / 2
    plain -= np.log(np.exp(plain).sum())
    assert row.audio_effect == pytest.approx(doubled[0] - plain[0], abs=1e-6)
    assert row.video_effect == pytest.approx(doubled[0] - np.log(1 / 3), abs=1e-6)
    columns = Columns(classes=COLOURS.classes, with_effects=True)
    assert columns.of_window(row, "film")["audio_effect"] == row.audio_effect
    with BatchedNetwork(method, stream, with_effects=True) as network:
        (part, _) = FilmReading(str(film([RED], name="s.mp4", tone=False)), network).parts()
    assert part.windows[0].audio_effect is None


def test_action_units_of_frames(film: Film) -> None:
    """Between sampled frames on straight lines."""

    class Units(ColourMethod):
        action_units = ("AU12",)

        def predict(self, batch: ClipBatch) -> Prediction:
            logits_BTU = batch.views[0].frame_times_BT[..., None] * 4 - 2
            logits_BK = super().predict(batch).logits_BK
            return Prediction(
                logits_BK=logits_BK, features_BD=logits_BK, action_unit_logits_BTU=logits_BTU
            )

    method = Units(align_faces=False)
    with BatchedNetwork(method, method.prediction_stream()) as network:
        parts = list(FilmReading(str(film([RED])), network).parts())
    rows = [row for part in parts for row in part.frames]
    # Sampled are frames 1, 3, 6 and 8 of 10.
    assert [rows[n].units[0] for n in (1, 3, 6, 8)] == pytest.approx(
        [1 / (1 + np.exp(2 - 0.4 * n)) for n in (1, 3, 6, 8)]
    )
    assert rows[2].units[0] == pytest.approx((rows[1].units[0] + rows[3].units[0]) / 2)
    assert rows[0].units == rows[1].units
    columns = Columns(
        classes=COLOURS.classes, action_units=("AU12",), action_unit_calibration="as in training"
    )
    assert columns.of_frame(rows[2], "film")["AU12"] == rows[2].units[0]
    told = columns.frame_schema.metadata[b"mien.action_units"].decode()
    assert "probability that the unit is present, 0 to 1; calibration: as in training" in told
    assert "FACS steps, 0 (absent) to 5" in told
    assert b"mien.action_units" not in columns.window_schema.metadata


def test_tables(film: Film, tmp_path: Path) -> None:
    windows, _ = read(film([RED, BLUE]), faces=False, windowing=Windowing(window_s=1.0))
    columns = Columns(classes=COLOURS.classes)
    rows = [columns.of_window(row, "film") for row in windows]
    for ending in ("csv", "parquet", "jsonl"):
        with table_writer(str(tmp_path / f"out.{ending}"), columns.window_schema) as write:
            write(rows)
    with open(tmp_path / "out.csv") as file:
        told = list(csv.DictReader(file))
    assert [row["label"] for row in told] == ["red", "blue"]
    assert float(told[1]["p_blue"]) == windows[1].probabilities[2]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    with (
        pytest.raises(ValueError, match=r"ends in \.parquet, \.csv or \.jsonl"),
        table_writer(str(tmp_path / "out.xlsx"), columns.window_schema),
    ):
        pass


def test_a_table_is_whole_or_not_there(tmp_path: Path) -> None:
    columns = Columns(classes=COLOURS.classes)
    row = columns.of_window(WindowRow(start_s=0, end_s=1, has_audio=False), "film")

    def stops_half_way() -> None:
        with table_writer(str(tmp_path / "out.csv"), columns.window_schema) as write:
            write([row] * 10_000)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        stops_half_way()
    assert list(tmp_path.iterdir()) == []


def test_bad_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="there is no") as caught:
        predict(tmp_path / "missing.mp4")
    assert caught.value.reason == "missing_file"
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    with pytest.raises(ClipError) as caught:
        predict(tmp_path / "text.mp4")
    assert caught.value.reason == "not_a_video"


def test_a_broken_network_is_not_an_answer(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Method, batch: ClipBatch) -> Prediction:
        nothing = torch.full((1, 3), float("nan"))
        return Prediction(logits_BK=nothing, features_BD=nothing)

    monkeypatch.setattr(ColourMethod, "predict", broken)
    with pytest.raises(BrokenNetworkError, match="logits are not finite"):
        predict(film([RED]))
