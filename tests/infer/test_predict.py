"""Prediction of real files with a method whose answer can be read off the picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.infer.predict import FilePrediction, predict_file
from mien.infer.windows import Window, cut_windows
from mien.media.errors import ClipError
from mien_models.contract import (
    AudioSpec,
    ClipBatch,
    Method,
    Prediction,
    Progress,
    Range,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)

COLOURS = LabelSet(name="colours", classes=("red", "green", "blue"))
RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)
Film = Callable[..., Path]


class ColourMethod(Method):
    """Says which colour the picture has; the sound, where there is any, sharpens the answer."""

    def __init__(self, *, with_audio: bool = True, align_faces: bool = True) -> None:
        super().__init__()
        self.align_faces = align_faces
        self.classes = COLOURS.classes
        self.with_audio = with_audio

    def stage(self, index: int) -> Stage | None:
        return None

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        raise NotImplementedError

    def predict(self, batch: ClipBatch) -> Prediction:
        logits_BK = batch.video_BTCHW.double().mean((1, 3, 4)) / 100
        if batch.audio_BFM is not None:
            logits_BK = logits_BK * (1 + batch.has_audio_B[:, None].double())
        return Prediction(logits_BK=logits_BK, features_BD=logits_BK)

    def prediction_stream(self) -> StreamSpec:
        audio = AudioSpec(num_frames=64, num_mels=16) if self.with_audio else None
        return StreamSpec(
            views=(ViewSpec(num_frames=4),),
            image_size_px=16,
            align_faces=self.align_faces,
            audio=audio,
        )

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        return {}


def predict(
    path: Path,
    *,
    with_audio: bool = True,
    align_faces: bool = True,
    window_s: float | None = None,
) -> FilePrediction:
    method = ColourMethod(with_audio=with_audio, align_faces=align_faces)
    return predict_file(
        path,
        method=method,
        label_set=COLOURS,
        stream=method.prediction_stream(),
        window_s=window_s,
    )


def test_short_file_is_one_row(film: Film) -> None:
    found = predict(film([GREEN] * 2))
    (window,) = found.windows
    assert window.label == "green"
    assert window.probability == max(window.probabilities)
    assert sum(window.probabilities) == pytest.approx(1)
    assert (window.start_s, window.has_audio, window.faces) == (0.0, True, 0.0)
    assert window.end_s == pytest.approx(2.0, abs=0.01)


def test_every_window_sees_its_own_pictures(film: Film) -> None:
    colours = [RED, RED, BLUE, BLUE, GREEN, GREEN, RED]
    found = predict(film(colours), window_s=2.0)
    assert [window.label for window in found.windows] == ["red", "blue", "green", "red"]
    assert [window.start_s for window in found.windows] == [0, 2, 4, 6]
    assert found.windows[-1].end_s == pytest.approx(7.0, abs=0.01)


def test_long_file_is_cut_by_itself(film: Film) -> None:
    found = predict(film([RED] * 6 + [BLUE] * 6))
    assert [window.label for window in found.windows] == ["red", "red", "blue", "blue"]


def test_missing_sound_and_faces_are_said(film: Film) -> None:
    silent = predict(film([RED], tone=False))
    assert not silent.windows[0].has_audio
    assert silent.warnings == (
        "no face was found in 1 of 1 windows (from 0.0 s); their labels don't rest on a face",
        "the file has no sound that can be decoded; the labels rest on the picture alone",
    )
    unaware = predict(film([RED], tone=False), with_audio=False)
    assert len(unaware.warnings) == 1
    loud = predict(film([RED], name="loud.mp4"))
    assert loud.windows[0].probability > silent.windows[0].probability


def test_a_method_that_does_not_look_for_faces_claims_none(film: Film) -> None:
    found = predict(film([RED]), align_faces=False)
    assert found.windows[0].faces is None
    assert found.warnings == ()
    assert found.to_markdown().splitlines()[2].split("|")[5].strip() == "-"
    assert found.to_table()["faces"].to_pylist() == [None]


def test_tables(film: Film, tmp_path: Path) -> None:
    found = predict(film([RED, BLUE]), window_s=1.0)
    found.write(tmp_path / "out.csv")
    found.write(tmp_path / "out.parquet")
    found.write(tmp_path / "out.md")
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["red", "blue"]
    assert float(rows[1]["p_blue"]) == found.windows[1].probability
    assert pq.read_table(tmp_path / "out.parquet").equals(found.to_table())
    text = (tmp_path / "out.md").read_text()
    assert text.splitlines()[2].startswith("| 0.00    | 1.00  | red   |")
    assert "warning: no face was found in 2 of 2 windows" in text
    with pytest.raises(ValueError, match=r"ends in \.csv, \.parquet or \.md"):
        found.write(tmp_path / "out.xlsx")


def test_windows_without_pictures_keep_their_row(film: Film) -> None:
    """Ten frames a second: windows of 40 ms hold a frame or none."""
    found = predict(film([RED]), window_s=0.04)
    reasons = [window.reason for window in found.windows]
    assert set(reasons) == {"", "too_few_frames"}
    assert sum(reason == "" for reason in reasons) == 10
    empty = found.windows[reasons.index("too_few_frames")]
    assert (empty.label, empty.probability, empty.probabilities) == (None, None, ())
    assert found.to_table()["p_red"][reasons.index("too_few_frames")].as_py() is None
    assert "(too_few_frames)" in found.to_markdown()
    assert "windows have no label; the first because:" in found.warnings[-1]


def test_bad_files_say_why(film: Film, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="there is no") as caught:
        predict(tmp_path / "missing.mp4")
    assert caught.value.reason == "missing_file"
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    with pytest.raises(ClipError) as caught:
        predict(tmp_path / "text.mp4")
    assert caught.value.reason == "not_a_video"
    with pytest.raises(ValueError, match="window_s=0"):
        predict(film([RED]), window_s=0)


def test_a_broken_network_is_not_an_answer(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Method, batch: ClipBatch) -> Prediction:
        nothing = torch.full((1, 3), float("nan"))
        return Prediction(logits_BK=nothing, features_BD=nothing)

    monkeypatch.setattr(ColourMethod, "predict", broken)
    with pytest.raises(ValueError, match="logits are not finite"):
        predict(film([RED]))


@pytest.mark.parametrize(
    ("duration_s", "window_s", "ends"),
    [
        (9.9, None, [9.9]),
        (10.5, None, [3, 6, 9, 10.5]),
        (9.9, 3.0, [3, 6, 9.9]),
        (10.0, 3.0, [3, 6, 9, 10]),
        (0.5, 3.0, [0.5]),
        (6.0, 3.0, [3, 6]),
    ],
)
def test_windows_cover_the_file(
    duration_s: float, window_s: float | None, ends: list[float]
) -> None:
    windows = cut_windows(duration_s, window_s)
    assert [window.end_s for window in windows] == pytest.approx(ends)
    assert [window.start_s for window in windows] == pytest.approx([0, *ends[:-1]])


def test_window_is_half_open() -> None:
    assert cut_windows(2.0, 1.0) == [Window(start_s=0, end_s=1), Window(start_s=1, end_s=2)]
