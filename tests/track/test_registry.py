"""Register, export, find and load again, with a real MLflow in a local data base."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import mlflow.pytorch
import numpy as np
import pytest
import torch
from torch import nn

from mien.clips.labels import LabelSet
from mien.infer.package import PackageError, PackageInfo, load_package, restore_method, save_package
from mien.track.export import ExportError, ExportSpec, example_inputs
from mien.track.references import resolve
from mien.track.registry import RegistryError, list_models, register
from mien.track.tracker import TrackerSpec, embedded_uri
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
    TensorPredictor,
    ViewSpec,
)

CLASSES = LabelSet(name="three", classes=("joy", "grief", "rage"))


class Probe(Method):
    """Attention over frames plus masked sound: what real methods do, small."""

    def __init__(self, classes: tuple[str, ...], *, has_sound: bool = True) -> None:
        super().__init__()
        self.classes = classes
        self.has_sound = has_sound
        self.frame = nn.Linear(3 * 8 * 8, 16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.sound = nn.Linear(4, 16)
        self.head = nn.Linear(16, 2)
        self.register_buffer("scale", torch.tensor(2.0))

    def begin_stage(self, index: int) -> None:
        self.head = nn.Linear(16, len(self.classes))  # a wider head, as when classes arrive

    def stage(self, index: int) -> Stage | None:
        return None

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        raise NotImplementedError

    def predict(self, batch: ClipBatch) -> Prediction:
        frames_BTD = self.frame(batch.video_BTCHW.flatten(2).float() / 255)
        features_BD = self.attend(frames_BTD, frames_BTD, frames_BTD, need_weights=False)[0].mean(1)
        if batch.audio_BFM is not None:
            steps_F = torch.arange(batch.audio_BFM.shape[1])
            valid_BF = (steps_F < batch.audio_frames_B[:, None]) & batch.has_audio_B[:, None]
            sound_BFD = self.sound(batch.audio_BFM) * valid_BF[:, :, None]
            features_BD = features_BD + sound_BFD.sum(1) / valid_BF.sum(1, keepdim=True).clamp(
                min=1
            )
        return Prediction(logits_BK=self.head(features_BD) * self.scale, features_BD=features_BD)

    def prediction_stream(self) -> StreamSpec:
        audio = AudioSpec(num_frames=12, num_mels=4) if self.has_sound else None
        return StreamSpec(views=(ViewSpec(num_frames=3),), image_size_px=8, audio=audio)

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        return {}


class FixedBatch(Probe):
    """Its predict is written for the batch that it was traced with."""

    def predict(self, batch: ClipBatch) -> Prediction:
        found = super().predict(batch)
        ones_B1 = torch.tensor([[1.0]] * batch.video_BTCHW.shape[0])
        return dataclasses.replace(found, logits_BK=found.logits_BK * ones_B1)


class Dice(Probe):
    """Predicts something else each time."""

    def predict(self, batch: ClipBatch) -> Prediction:
        found = super().predict(batch)
        return dataclasses.replace(
            found, logits_BK=found.logits_BK + torch.rand_like(found.logits_BK)
        )


def build(kind: type[Probe] = Probe, *, has_sound: bool = True) -> Probe:
    torch.manual_seed(3)
    method = kind(CLASSES.classes, has_sound=has_sound)
    method.begin_stage(0)
    method.eval()
    return method


def package_of(method: Probe, folder: Path) -> Path:
    info = PackageInfo(
        method="probe",
        config={},
        label_set=CLASSES,
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
    )
    return save_package(folder, info, method.state_dict())


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return embedded_uri(tmp_path_factory.mktemp("tracking"))


@pytest.fixture
def run_id(uri: str, request: pytest.FixtureRequest) -> str:
    key = re.sub(r"\W", " ", request.node.name)
    return TrackerSpec(uri=uri, run_key=key).open().run_id


@pytest.mark.parametrize("has_sound", [True, False])
def test_registered_exported_and_loaded_again(
    uri: str, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_sound: bool
) -> None:
    method = build(has_sound=has_sound)
    folder = package_of(method, tmp_path / "package")
    name = f"probe-{has_sound}"
    found = register(uri, run_id, folder, name=name, export=ExportSpec(method=method))
    assert found.version == 1
    assert list_models(uri)[name] == {"champion": 1}
    shutil.rmtree(folder)

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    exported = mlflow.pytorch.load_model(f"models:/{name}@champion")
    info, tensors = load_package(resolve(uri, f"models:/{name}@champion"))
    packaged = restore_method(Probe(info.label_set.classes), info, tensors)
    assert not packaged.training
    for num_clips in (1, 5):
        inputs = [torch.from_numpy(a) for a in example_inputs(info.prediction_stream, num_clips)]
        with torch.no_grad():
            eager = TensorPredictor(method)(*inputs)
            assert torch.equal(TensorPredictor(packaged)(*inputs), eager)
            torch.testing.assert_close(exported(*inputs), eager, rtol=0, atol=1e-5)
    assert len(inputs) == (4 if has_sound else 1)
    assert eager.std() > 0.01


def test_sound_masks_are_part_of_the_export(
    uri: str, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build()
    folder = package_of(method, tmp_path / "package")
    found = register(uri, run_id, folder, name="masks", export=ExportSpec(method=method))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    exported = mlflow.pytorch.load_model(found.export_uri)
    video, sound, valid, has = map(torch.from_numpy, example_inputs(method.prediction_stream(), 2))
    loud = sound.clone()
    loud[1] += 9  # the clip without sound
    loud[0, valid[0] :] += 9  # padding
    assert torch.equal(exported(video, sound, valid, has), exported(video, loud, valid, has))
    assert not torch.equal(
        exported(video, sound, valid, has), exported(video, sound + 1, valid, has)
    )


def test_versions_and_alias_move(uri: str, run_id: str, tmp_path: Path) -> None:
    first = package_of(build(), tmp_path / "one")
    changed = build()
    changed.scale.fill_(3.0)
    second = package_of(changed, tmp_path / "two")
    register(uri, run_id, first, name="moving")
    other_run = TrackerSpec(uri=uri, run_key="second run").open().run_id
    found = register(uri, other_run, second, name="moving", alias=None)
    assert found.version == 2
    assert found.export_uri is None
    scale = {
        ref: load_package(resolve(uri, ref))[1]["scale"].item()
        for ref in ("moving@champion", "models:/moving/2")
    }
    assert scale == {"moving@champion": 2.0, "models:/moving/2": 3.0}
    register(uri, other_run, second, name="moving", alias="champion")
    assert load_package(resolve(uri, "moving@champion"))[1]["scale"].item() == 3.0


def test_unknown_references_list_what_exists(uri: str, run_id: str, tmp_path: Path) -> None:
    folder = package_of(build(), tmp_path / "package")
    register(uri, run_id, folder, name="known")
    with pytest.raises(RegistryError, match=r"no registered model 'knwon'; there are: .*known"):
        resolve(uri, "knwon@champion")
    with pytest.raises(RegistryError, match=r"no alias 'challenger'; it has: champion"):
        resolve(uri, "known@challenger")
    with pytest.raises(RegistryError, match=r"no version 7; it has: 1"):
        resolve(uri, "known/7")
    with pytest.raises(RegistryError, match="give the tracking URI"):
        resolve(None, "known@champion")
    with pytest.raises(RegistryError, match=r"no model '.*/nothing'; give a package's or a run's"):
        resolve(uri, str(tmp_path / "nothing"))
    assert resolve(None, str(folder)) == folder


def test_changed_artifact_is_noticed(uri: str, run_id: str, tmp_path: Path) -> None:
    """Somebody puts another whole package in the place of the registered one."""
    register(uri, run_id, package_of(build(), tmp_path / "one"), name="swapped", alias="champion")
    changed = build()
    changed.scale.fill_(9.0)
    place = resolve(uri, "swapped@champion")
    shutil.rmtree(place)
    package_of(changed, place)
    with pytest.raises(PackageError, match="not the package of swapped version 1"):
        resolve(uri, "swapped@champion")


def test_lost_artifact_is_named(uri: str, run_id: str, tmp_path: Path) -> None:
    register(uri, run_id, package_of(build(), tmp_path / "one"), name="lost")
    shutil.rmtree(resolve(uri, "lost@champion"))
    with pytest.raises(RegistryError, match=rf"lost version 1 is gone from .*run {run_id}"):
        resolve(uri, "lost@champion")


@pytest.mark.parametrize(
    ("kind", "message"), [(FixedBatch, "does not take 1 clips"), (Dice, "deterministic")]
)
def test_exports_that_differ_are_refused(
    uri: str, run_id: str, tmp_path: Path, kind: type[Probe], message: str
) -> None:
    method = build(kind)
    folder = package_of(method, tmp_path / "package")
    with pytest.raises(ExportError, match=message):
        register(uri, run_id, folder, name=f"bad-{kind.__name__}", export=ExportSpec(method=method))
    assert f"bad-{kind.__name__}" not in list_models(uri)


@pytest.mark.parametrize(
    ("name", "alias"), [("a/b", "champion"), ("a", "v3"), ("a", "latest"), ("a", "two words")]
)
def test_bad_names(uri: str, tmp_path: Path, name: str, alias: str) -> None:
    with pytest.raises(RegistryError, match=r"may hold letters|must start with a letter"):
        register(uri, "run", tmp_path, name=name, alias=alias)


def test_a_network_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    info, tensors = load_package(package_of(build(), tmp_path / "package"))
    with pytest.raises(PackageError, match=r"(?s)don't fit Probe.*head\.weight"):
        restore_method(Probe(CLASSES.classes), dataclasses.replace(info, stages_begun=0), tensors)
    with pytest.raises(PackageError, match="was built for classes"):
        restore_method(Probe(("joy", "rage", "grief")), info, tensors)


def test_export_needs_neither_mien_nor_pickle(uri: str, run_id: str, tmp_path: Path) -> None:
    method = build()
    folder = package_of(method, tmp_path / "package")
    found = register(uri, run_id, folder, name="alone", export=ExportSpec(method=method))
    arrays: dict[str, Any] = dict(
        zip("abcd", example_inputs(method.prediction_stream(), 2), strict=True)
    )
    np.savez(tmp_path / "inputs.npz", **arrays)
    code = f"""
import os, sys
os.environ.update(MLFLOW_TRACKING_URI={uri!r}, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
                  MLFLOW_DISABLE_TELEMETRY="true")
import mlflow.pytorch, numpy, torch
model = mlflow.pytorch.load_model({found.export_uri!r})
inputs = numpy.load({str(tmp_path / "inputs.npz")!r})
print(model(*(torch.from_numpy(inputs[k]) for k in "abcd")).sum().item())
assert not any(name.split(".")[0].startswith("mien") for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        inputs = [torch.from_numpy(array) for array in arrays.values()]
        eager = TensorPredictor(method)(*inputs)
    assert float(done.stdout) == pytest.approx(eager.sum().item(), abs=1e-4)


def test_a_package_in_a_bucket_is_fetched_whole(tmp_path: Path) -> None:
    folder = package_of(build(has_sound=False), tmp_path / "package")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(folder), "memory://models/faces", recursive=True)

    fetched = resolve(None, "memory://models/faces")

    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    with pytest.raises(PackageError, match=r"memory://models is not a model package"):
        resolve(None, "memory://models")
