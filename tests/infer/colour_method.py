"""A method whose answer can be read off the picture."""

from __future__ import annotations

from collections.abc import Mapping

from mien.clips.labels import LabelSet
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
