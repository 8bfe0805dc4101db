"""The model card says what a reader must know, from the facts alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.evaluate.predictions import make_predictions
from mien.evaluate.scorecard import make_scorecard
from mien.evaluate.slices import SliceRules
from mien.infer.package import PackageInfo, load_package, save_package
from mien.track.model_card import CARD_FILE, make_model_card, write_model_card
from mien_models.contract import StreamSpec

LABELS = LabelSet(name="three", classes=("joy", "rage", "awe"))


def card(*, is_own: bool = True) -> str:
    rows = [
        {
            "clip_id": f"c{i}",
            "uri": f"{i}.mp4",
            "subject_id": f"p{i // 10}",
            "label": "joy",
            "licence": "CC-BY-4.0" if i < 30 else None,
            "sex": "female" if i // 10 % 2 else "male",
        }
        for i in range(80)
    ]
    manifest = Manifest.from_rows(rows)
    ids = [row["clip_id"] for row in rows]
    split = Split(name="s", train=ids[:40], test=ids[40:], notes=("A note about the split.",))
    true = np.arange(40) % 2
    predicted = np.where(np.arange(40) // 10 % 2, 0, true)  # women are always joyful
    predictions = make_predictions(
        clip_ids=ids[40:],
        logits_NK=np.eye(3)[predicted],
        label_set=LABELS,
        true_N=true,
        subject_ids=[f"p{i // 10}" for i in range(40, 80)],
        weights_sha256="f" * 64,
    )
    sex = {str(row["clip_id"]): row["sex"] for row in rows}
    rules = SliceRules(min_clips=5, min_people=2)
    scores = make_scorecard(predictions, slice_by={"sex": sex}, rules=rules)
    info = PackageInfo(
        method="mma_dfer",
        config={},
        label_set=LABELS,
        prediction_stream=StreamSpec(),
        stages_begun=0,
        recipe={"data": {"manifest": "films/manifest.parquet"}},
        pretrained={"video_encoder": {"source": "MAE-Face", "licence": "CC-BY-NC-4.0"}},
    )
    return make_model_card(info, scores, manifest, split, is_own=is_own)


def test_what_a_reader_must_know() -> None:
    text = card()
    for fact in (
        "films/manifest.parquet",
        "CC-BY-NC-4.0",
        "Intended use: research",
        "UAR 0.750",
        "worst slice",
        "sex = female: WAR 0.500",
        "weakest class",
        "rage: recall 0.500",
        "awe",
        "A note about the split.",
        "age, skin or ancestry",
    ):
        assert fact in text, fact
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "| train | 40 | 4 |" in rows
    assert "| test | 40 | 4 |" in rows
    assert "| CC-BY-4.0 | 30 |" in rows
    assert "| not stated | 50 |" in rows


def test_other_clips_are_not_called_held_out() -> None:
    assert "held out" in card()
    assert "not compared with those who were scored" in card(is_own=False)
    assert "held out" not in card(is_own=False)


def test_a_package_with_its_card_is_still_a_package(tmp_path: Path) -> None:
    info = PackageInfo(
        method="m", config={}, label_set=LABELS, prediction_stream=StreamSpec(), stages_begun=0
    )
    folder = save_package(tmp_path / "package", info, {})
    write_model_card(folder, card())
    assert (folder / CARD_FILE).read_text().startswith("# Model card: mma_dfer")
    load_package(folder)
