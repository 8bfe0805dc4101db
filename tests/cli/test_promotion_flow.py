"""From two trainings to a champion, a refusal and a way back, through a tracking server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow_server import running_server

from mien.infer.package import read_info
from mien.infer.rows import WEIGHTS_KEY
from mien_jobs.cli import main
from mien_jobs.run_note import RUN_NOTE

pytestmark = pytest.mark.slow

SMALL = [
    "train.workers=0",
    "data.test_fraction=0.5",
    "config.batch_size=4",
    "config.autoencoder.batch_size=4",
]
ANY_TIME = ["--max-latency-ratio", "1000", "--decode-tasks", "0"]
"""How long a clip takes says more of the machine than of the model."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


def train(manifest: Path, name: str, *options: str, epochs: int) -> str:
    """The hash of the trained weights; the run lies in ``runs/NAME``."""
    length = [f"config.epochs={epochs}", f"config.autoencoder.epochs={epochs}"]
    run = ["mma_dfer", "--profile", "tiny", "--data", str(manifest), "--name", name, *options]
    assert main(["train", *run, "--set", *SMALL, *length, "data.cache=cache"]) == 0
    return read_info(Path("runs") / name / "package").weights_sha256


def predicted_by(reference: str, film: Path) -> str:
    """The hash of the weights that predicted, as the table of predictions tells it."""
    out = Path("rows.parquet")
    out.unlink(missing_ok=True)
    assert main(["predict", str(film), "--model", reference, "--out", str(out)]) == 0
    return pq.read_schema(out).metadata[WEIGHTS_KEY].decode()


@pytest.mark.timeout(900)
def test_the_champion_changes_hands_only_with_a_reason(
    server: str,
    synth_manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    film = sorted(synth_manifest.parent.rglob("*.mp4"))[0]
    client = MlflowClient(server)

    weak = train(synth_manifest, "weak", "--register", "faces", epochs=1)
    good = train(synth_manifest, "good", epochs=5)
    assert predicted_by("models:/faces@champion", film) == weak
    assert predicted_by("good", film) == good

    lenient = ["--min-gain", "-0.5", "--max-slice-loss", "1"]
    assert main(["promote", "good", "--name", "faces", *lenient, *ANY_TIME]) == 0
    assert predicted_by("models:/faces@champion", film) == good

    capsys.readouterr()
    assert main(["promote", "faces/1", "--name", "faces", *ANY_TIME]) == 1
    assert "refused: faces@champion is still version 2" in capsys.readouterr().out
    refused, promoted = (client.get_model_version("faces", number) for number in "12")
    assert refused.tags["mien.promotion"] == "refused"
    assert "against version 2: " in refused.tags["mien.promotion_why"]
    assert promoted.tags["mien.promotion"] == "promoted"
    notes = [client.get_run(one.run_id).data.tags[RUN_NOTE] for one in (refused, promoted)]
    assert notes[0].startswith("**faces version 1 was refused**: against version 2: ")
    assert notes[1].startswith("**faces version 2 was accepted**: against version 1: ")
    stored = {item.path for item in client.list_artifacts(refused.run_id, "promotion/faces-v1")}
    assert "promotion/faces-v1/promotion.html" in stored
    assert predicted_by("models:/faces@champion", film) == good

    assert main(["rollback", "--name", "faces"]) == 0
    assert predicted_by("models:/faces@champion", film) == weak
    assert predicted_by(f"runs:/{promoted.run_id}", film) == good
