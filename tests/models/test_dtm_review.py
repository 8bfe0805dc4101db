"""Class caps, epochs told, the post-filter at test, and the queue of doubtful pseudo-labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.evaluate.predictions import make_predictions
from mien.evaluate.pseudo_label_plot import plot_pseudo_labels
from mien.infer.package import PackageInfo
from mien.track.tracker import NoTracker
from mien_jobs import overrides
from mien_jobs.post_filtering import post_filter_frames, post_filtered
from mien_jobs.pseudo_labels import pseudo_label, track_pseudo_labels
from mien_jobs.recipe import DataPlan
from mien_models.dtm import Dtm, DtmConfig
from mien_models.dtm.thresholds import Verdict, surest_of_class

CLASSES = ("happiness", "sadness", "anger")


def test_a_class_keeps_its_surest() -> None:
    class_U = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    confidence_U = torch.tensor([0.9, 0.95, 0.99, 0.5, 0.9, 0.8, 0.7, 0.99])
    accepted_U = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]).bool()
    verdict = Verdict(
        class_U=class_U,
        confidence_U=confidence_U,
        accepted_U=accepted_U,
        weight_U=accepted_U.float(),
    )
    # A quarter of 8 clips is 2: the two surest of the three of class 0.
    capped = surest_of_class(verdict, 0.25)
    assert capped.accepted_U.tolist() == [False, True, True, False, True, False, False, False]
    assert capped.weight_U.tolist() == capped.accepted_U.float().tolist()
    # One clip always may.
    assert surest_of_class(verdict, 0.01).accepted_U.tolist()[:5] == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert surest_of_class(verdict, 1.0).accepted_U.equal(accepted_U)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="class_cap=0"):
        replace(DtmConfig.tiny(), class_cap=0.0)
    with pytest.raises(ValueError, match="post_filter_frames=4 must be odd"):
        replace(DtmConfig.tiny(), post_filter_frames=4)


def told(epoch: int) -> dict[str, float]:
    one = {"pseudo_accuracy": 0.5}
    for name in CLASSES:
        one |= {f"threshold/{name}": 0.8, f"accepted/{name}": epoch, f"pseudo_share/{name}": 0.3}
    return one


def test_epochs_are_kept_and_drawn(tmp_path: Path) -> None:
    method = Dtm(DtmConfig.tiny(), CLASSES)
    track_pseudo_labels(NoTracker(), method, folder=str(tmp_path))
    assert not list(tmp_path.iterdir())
    method.load_json_state({"epochs": [told(1), told(2)]})
    assert method.json_state()["epochs"] == [told(1), told(2)]
    track_pseudo_labels(NoTracker(), method, folder=str(tmp_path))
    assert (tmp_path / "pseudo_labels.png").read_bytes()[:4] == b"\x89PNG"
    figure = plot_pseudo_labels(method.told_epochs, CLASSES)
    accepted = figure.axes[1].get_lines()[0]
    assert list(accepted.get_ydata()) == [1, 2]


def test_frames_of_a_video_help_each_other() -> None:
    """Two subjects of one recording lie in folders of their own and aren't mixed."""
    names = ["v_left/3.png", "v_left/1.png", "v_left/2.png", "v_right/1.png"]
    rows = [{"clip_id": name, "uri": f"/{name}", "source": "v"} for name in names]
    manifest = Manifest.from_rows(rows, base="/")
    shares = {"v_left/1.png": 0.9, "v_left/2.png": 0.2, "v_left/3.png": 0.7, "v_right/1.png": 0.1}
    logits = np.log([[shares[name], 1 - shares[name]] for name in names])
    found = make_predictions(
        clip_ids=names,
        logits_NK=logits,
        label_set=LabelSet(name="two", classes=("a", "b")),
        true_N=[0, 0, 0, 1],
        modality="video",
        has_audio_N=[False] * 4,
        face_share_N=[1.0, 1.0, 1.0, 1.0],
    )
    smooth = post_filtered(found, manifest, 3)
    rows_NK = dict(
        zip(smooth.table["clip_id"].to_pylist(), smooth.column("probabilities"), strict=True)
    )
    assert rows_NK["v_left/2.png"][0] == pytest.approx((0.9 + 0.2 + 0.7) / 3, abs=1e-6)
    assert rows_NK["v_left/1.png"][0] == pytest.approx((0.9 + 0.2) / 2, abs=1e-6)
    assert rows_NK["v_right/1.png"][0] == pytest.approx(0.1, abs=1e-6)
    assert smooth.modalities == ("video, 3 frames",)
    assert post_filter_frames(Dtm(replace(DtmConfig.tiny(), post_filter_frames=3), CLASSES)) == 3


def test_the_most_doubtful_accepted_come_first(synth_manifest: Path) -> None:
    some = Manifest.read(str(synth_manifest)).filter(np.arange(36) < 8)
    table = some.table
    index = table.schema.get_field_index("label")
    labels = [None] * 6 + table["label"].to_pylist()[6:]
    table = table.set_column(index, "label", pa.array(labels, pa.string()))
    manifest = Manifest(table, base=some.base)
    torch.manual_seed(0)
    method = Dtm(replace(DtmConfig.tiny(), image_size_px=48, border_px=4), CLASSES).eval()
    info = PackageInfo(
        method="dtm",
        config={},
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
        recipe={"data": json.loads(overrides.to_json(DataPlan()))},
    )
    method.rule.thresholds_K.fill_(0.0)
    found = pseudo_label(method, info, manifest)
    assert {item.clip_id for item in found.accepted} == set(manifest.column("clip_id")[:6])
    assert found.refused == 0
    agreeing = [
        item.facts["margin"] for item in found.accepted if item.facts["looks_agree"] == "yes"
    ]
    assert agreeing == sorted(agreeing)
    one = found.accepted[0]
    assert one.given is None
    assert one.facts["confidence"] == pytest.approx(one.probabilities[one.suggested], abs=1e-5)
    method.rule.thresholds_K.fill_(1.0)
    assert pseudo_label(method, info, manifest).refused == 6
    with pytest.raises(ValueError, match="every clip of the manifest has a label"):
        pseudo_label(method, info, manifest.filter(np.arange(8) >= 6))
