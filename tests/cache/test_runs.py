"""Runs that read from a cache, and the verb ``mien cache``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien.cache.store import ClipCache
from mien.clips.manifest import Manifest
from mien.infer.package import load_package
from mien_jobs import cli
from mien_jobs.dry_run import dry_run
from mien_jobs.overrides import apply_overrides
from mien_jobs.recipe import Recipe
from mien_jobs.training import fetch_package, prepare, run_training

Capture = pytest.CaptureFixture[str]

SMALL = [
    "config.image_size_px=32",
    "config.border_px=4",
    "config.align_faces=false",
    "config.num_frames=2",
    "config.audio.num_frames=64",
    "config.audio.num_mels=32",
]
TINY = [
    *SMALL,
    "config.autoencoder=none",
    "config.epochs=2",
    "config.batch_size=6",
    "config.encoder.dim=24",
    "config.encoder.depth=2",
    "config.encoder.num_heads=2",
    "config.fusion.width=8",
    "config.temporal.dim=24",
    "config.temporal.num_heads=2",
    "config.temporal.head_dim=12",
    "config.temporal.mlp_dim=24",
    "data.val_fraction=0.2",
    "data.test_fraction=0.2",
    "track.uri=off",
    "weights.video_encoder=random",
    "weights.audio_encoder=random",
    "train.workers=0",
]


@pytest.fixture
def recipe(clips: Manifest, tmp_path: Path) -> Callable[..., Recipe]:
    """A run of seconds on copied clips."""
    from mien_jobs.methods import make_recipe

    def make(name: str, *changes: str) -> Recipe:
        made = apply_overrides(make_recipe("mma_dfer", "tiny"), [*TINY, *changes])
        data = replace(made.data, manifest=str(tmp_path / "clips"))
        return replace(made, name=name, data=data, storage=str(tmp_path / "runs"))

    return make


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    _, tensors = load_package(fetch_package(prepare(recipe).job))
    return tensors


def scores(recipe: Recipe) -> str:
    return Path(recipe.storage, recipe.name, "scorecard-test.json").read_text()


def test_a_lossless_cache_changes_no_bit_of_a_training_and_replaces_its_clips(recipe, tmp_path):
    plain = recipe("plain")
    run_training(prepare(plain))
    cached = f"data.cache={tmp_path / 'cache'}", "data.cache_format=png"
    said: list[str] = []
    first = recipe("first", *cached)
    run_training(prepare(first), said.append)
    assert any("36 clips cached, 0 were there already" in line for line in said)

    for clip in Manifest.read(str(tmp_path / "clips")):
        Path(clip.uri).unlink()
    second = recipe("second", *cached)
    assert "video (6, 2, 3, 32, 32)" in dry_run(prepare(second))
    said.clear()
    run_training(prepare(second), said.append)
    assert any("0 clips cached, 36 were there already" in line for line in said)
    assert "quarantine: 0 clips" in said

    expected = weights(plain)
    for run in (first, second):
        found = weights(run)
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
        assert json.loads(scores(run)) == json.loads(scores(plain))

    shutil.move(tmp_path / "cache", tmp_path / "moved")
    run_training(prepare(recipe("second", f"data.cache={tmp_path / 'moved'}", cached[1])))
    with pytest.raises(ValueError, match=r"\(data.cache: True then, False now\)"):
        prepare(recipe("second", cached[1]))


def test_a_dry_run_reads_a_cache_and_makes_none(recipe, tmp_path):
    dry_run(prepare(recipe("run", f"data.cache={tmp_path / 'cache'}")))
    assert not (tmp_path / "cache").exists()


def test_broken_clips_are_quarantined_as_without_a_cache(recipe, clips, tmp_path):
    for ref in list(clips)[:2]:
        Path(ref.uri).write_text("no video at all\n" * 99)
    said: list[str] = []
    run = recipe("run", f"data.cache={tmp_path / 'cache'}", "train.evaluate_every_epochs=9")
    run_training(prepare(run), said.append)
    assert any("2 cannot be decoded" in line for line in said)


def cache_verb(command: str, folder: Path, *more: str) -> int:
    return cli.main(["cache", command, "--cache", str(folder), *more])


def test_the_verb_builds_checks_and_prunes(clips, tmp_path, capsys: Capture):
    data, folder = str(tmp_path / "clips"), tmp_path / "cache"
    refs = list(Manifest.read(data))
    Path(refs[0].uri).write_text("no video at all\n" * 99)
    build = ["mma_dfer", "--profile", "tiny", "--data", data, "--set", "train.workers=0", *SMALL]
    assert cache_verb("build", folder, *build) == 0
    printed = capsys.readouterr()
    assert "whole pictures at 32 px, jpeg, all frames, sound: 35 clips cached" in printed.out
    assert f"  {refs[0].clip_id}: not_a_video: " in printed.out
    assert f"--set data.cache={folder}" in printed.out
    assert "clips to cache 36/36" in printed.err

    assert cache_verb("check", folder, "--data", data) == 0
    assert "36 entries" in capsys.readouterr().out
    shutil.copy(refs[1].uri, refs[2].uri)
    assert cache_verb("check", folder, "--data", data) == 1
    assert "35 clips there, 1 missing (1 of them as their source has changed)" in (
        capsys.readouterr().out
    )
    assert cache_verb("prune", folder, "--data", data) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert cache_verb("build", folder, *build) == 0
    assert "1 clips cached, 35 were there already" in capsys.readouterr().out
    assert cache_verb("build", folder, "--retry-failed", *build) == 0
    assert "0 clips cached, 35 were there already, 1 cannot be decoded" in capsys.readouterr().out


def test_the_verb_drops_what_is_damaged(clips, tmp_path, capsys: Capture):
    data, folder = str(tmp_path / "clips"), tmp_path / "cache"
    build = ["mma_dfer", "--profile", "tiny", "--data", data, "--set", "train.workers=0", *SMALL]
    assert cache_verb("build", folder, *build) == 0
    shard = next((folder / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    capsys.readouterr()
    assert cache_verb("check", folder) == 1
    assert f"{shard} is damaged" in capsys.readouterr().out
    assert cache_verb("check", folder, "--drop-damaged") == 1
    assert cache_verb("check", folder) == 0
    assert cache_verb("build", folder, *build) == 0
    assert cache_verb("check", folder, "--data", data) == 0


def test_clips_without_consent_are_not_cached_and_pruned_when_it_ends(clips, tmp_path, capsys):
    manifest = Manifest.read(str(tmp_path / "clips"))
    folder = tmp_path / "cache"
    person = manifest.subjects[0]
    rows = [
        {"clip_id": r.clip_id, "uri": r.uri, "consent": r.subject_id != person} for r in manifest
    ]
    Manifest.from_rows(rows).write(str(tmp_path / "now.parquet"))
    data = ["--data", str(tmp_path / "now.parquet")]
    build = ["mma_dfer", "--profile", "tiny", "--set", "train.workers=0", *SMALL]
    assert cache_verb("build", folder, *build, *data) == 0
    theirs = {r.clip_id for r in manifest if r.subject_id == person}
    assert ClipCache.open(str(folder)).holds(theirs) == set()
    assert cache_verb("build", folder, *build, "--data", str(tmp_path / "clips")) == 0
    assert ClipCache.open(str(folder)).holds(theirs) == theirs
    assert cache_verb("prune", folder, *data) == 0
    assert ClipCache.open(str(folder)).holds(theirs) == set()


def test_a_missing_cache_is_said_in_a_line(tmp_path, capsys: Capture):
    assert cache_verb("check", tmp_path / "nowhere") == 2
    assert "error: there is no clip cache in " in capsys.readouterr().err
