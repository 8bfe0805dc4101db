"""The verbs ``synth`` and ``list``, run for real."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from mien.synth import SynthSpec
from mien.track.tracker import embedded_uri
from mien_jobs import cli
from mien_jobs.field_options import field_docs

Capture = pytest.CaptureFixture[str]

SMALL = ["--num-subjects", "1", "--classes", "happiness", "--duration-s", "1", "--size-px", "64"]


def test_synth_writes_clips_and_manifest(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "set"
    assert cli.main(["synth", str(folder), "--workers", "1", "--seed", "3", *SMALL]) == 0
    printed = capsys.readouterr()
    manifest = folder / "manifest.parquet"
    assert f"--data {manifest}" in printed.out
    assert "clips 1/1" in printed.err
    (row,) = pq.read_table(manifest, columns=["uri", "label", "num_frames"]).to_pylist()
    assert (row["label"], row["num_frames"]) == ("happiness", 25)
    with av.open(str(folder / row["uri"])) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 25

    assert cli.main(["synth", str(folder), *SMALL]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_synth_dry_run_says_what_would_be_made_and_makes_nothing(
    tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["synth", str(tmp_path / "set"), "--dry-run", "--num-subjects", "4"]) == 0
    assert "28 clips of 4 people" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-subjects", "0"], "error: num_subjects is 0"),
        (["--label-noise", "2"], "error: label_noise"),
        (["--classes", "hapiness"], "happiness"),
        (["--workers", "0"], "error: --workers 0"),
    ],
)
def test_synth_refuses_bad_settings_in_a_line(
    options: list[str], words: str, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["synth", str(tmp_path), *options]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1


def test_every_setting_of_a_set_is_an_option(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["synth", "--help"])
    text = capsys.readouterr().out
    for item in dataclasses.fields(SynthSpec):
        assert f"--{item.name.replace('_', '-')} " in text
    assert field_docs(SynthSpec)["num_subjects"] in " ".join(text.split())


def test_list_names_methods_and_profiles(capsys: Capture) -> None:
    assert cli.main(["list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "mma_dfer" in line]
    for profile in ("tiny", "robust", "paper"):
        assert profile in row


def test_list_shows_every_setting_of_a_method(capsys: Capture) -> None:
    from mien_jobs.methods import make_recipe
    from mien_jobs.overrides import apply_overrides, diff

    assert cli.main(["list", "mma_dfer", "--profile", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    settings = [line for line in lines if "=" in line.partition(" ")[0]]
    tiny = make_recipe("mma_dfer", "tiny")
    changed = apply_overrides(tiny, ["name=other", "data.manifest=elsewhere"])
    # What is printed can be typed: it turns a changed recipe back into this one.
    assert len(settings) > 20
    assert diff(apply_overrides(changed, settings), tiny) == []


def test_list_refuses_an_unknown_method_with_the_nearest(capsys: Capture) -> None:
    assert cli.main(["list", "mma_dfr"]) == 2
    assert "did you mean mma_dfer?" in capsys.readouterr().err


def test_list_shows_registered_models_and_aliases(tmp_path: Path, capsys: Capture) -> None:
    from mlflow import MlflowClient

    assert cli.main(["list", "--models", "--storage", str(tmp_path)]) == 2
    assert "--storage FOLDER" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    client = MlflowClient(embedded_uri(tmp_path))
    assert cli.main(["list", "--models", "--storage", str(tmp_path)]) == 0
    assert "no registered models" in capsys.readouterr().out
    client.create_registered_model("faces")
    for number in (1, 2):
        client.create_model_version("faces", source=str(tmp_path / f"package{number}"))
    client.set_registered_model_alias("faces", "champion", "2")
    assert cli.main(["list", "--models", "--storage", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(row[:3] for row in rows) == [
        ["faces", "1", "-"],
        ["faces", "2", "champion"],
    ]
