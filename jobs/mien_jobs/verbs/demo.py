"""``mien demo``: one clip's whole way, from synthetic faces to a registered model in use."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mien.infer.predict import predict_file
from mien.media.storage import absolute
from mien.track.references import resolve
from mien.train.world import choose_device
from mien_jobs import overrides
from mien_jobs.methods import load_method, make_recipe
from mien_jobs.recipe import Recipe
from mien_jobs.tracking import tracking_uri
from mien_jobs.training import PreparedRun, TrainedModel, prepare, run_training, with_data
from mien_jobs.verbs import synth as synth_verb
from mien_jobs.verbs.train import add_override_option

MODEL = "mien-demo"
_CLIPS = ("--nuisance=0.5", "--min-intensity=0.7")
"""Expressions that show, in light that is not the worst: learnable in minutes, not trivial."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where everything goes")
    parser.add_argument("--subjects", type=int, default=110, help="synthetic people")
    parser.add_argument("--seed", type=int, default=0, help="of the data set and the training")
    add_override_option(parser)


def run(args: argparse.Namespace) -> int:
    """Makes clips, trains, scores, registers, predicts; tells what it does and how to go on."""
    started = time.monotonic()
    folder = Path(absolute(str(args.folder)))
    with _step(1, f"synthetic talking faces of {args.subjects} people"):
        manifest = make_clips(folder / "clips", args.subjects, args.seed)
    recipe = demo_recipe(manifest, folder, args.seed, args.overrides)
    with _step(2, "training mma_dfer (tiny) on video and sound, scoring on unseen people"):
        prepared = prepare(recipe)
        model = run_training(prepared)
    with _step(3, f"predicting one clip with {MODEL}@champion"):
        predict_one(prepared)
    _epilogue(prepared, model, time.monotonic() - started)
    return 0


@contextmanager
def _step(number: int, what: str) -> Iterator[None]:
    print(f"\n[{number}/3] {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"[{number}/3] done in {time.monotonic() - started:.0f} s", flush=True)


def make_clips(folder: Path, subjects: int, seed: int) -> Path:
    """The data set of the demo; one that is there already is kept."""
    manifest = folder / "manifest.parquet"
    if manifest.exists():
        print(f"{manifest} is there already and is used")
        return manifest
    parser = argparse.ArgumentParser()
    synth_verb.add_arguments(parser)
    synth_verb.run(
        parser.parse_args([str(folder), *_CLIPS, f"--num-subjects={subjects}", f"--seed={seed}"])
    )
    return manifest


def demo_recipe(manifest: Path, folder: Path, seed: int, changes: list[str]) -> Recipe:
    """The tiny recipe on the demo's clips, registered as the champion."""
    recipe = with_data(make_recipe("mma_dfer", "tiny"), str(manifest), "demo")
    recipe = replace(
        recipe,
        storage=str(folder / "runs"),
        train=replace(recipe.train, seed=seed),
        track=replace(recipe.track, model=MODEL, experiment="demo"),
    )
    return overrides.apply_overrides(recipe, changes)


def predict_one(run: PreparedRun) -> None:
    """Predicts a clip of a person whom the model has never seen, as a user would."""
    uri = tracking_uri(run.recipe.track.uri, run.recipe.storage)
    info, method = load_method(resolve(uri, f"{MODEL}@champion"))
    clip_id = run.data.split.test[0]
    clip = run.data.manifest.by_ids([clip_id]).ref(0)
    found = predict_file(
        clip.uri,
        method=method,
        label_set=info.label_set,
        stream=info.prediction_stream,
        device=choose_device("auto"),
    )
    print(f"{clip.uri} (labelled {clip.label})")
    print(found.to_markdown())


def _epilogue(run: PreparedRun, model: TrainedModel, seconds: float) -> None:
    uri = tracking_uri(run.recipe.track.uri, run.recipe.storage)
    programs = Path(sys.executable).parent
    print(
        f"\nAll done in {seconds // 60:.0f} min {seconds % 60:.0f} s. The model is registered as "
        f"{MODEL}, alias champion.\n"
        "Look at the run, its curves and pictures:\n"
        f"  {programs / 'mlflow'} ui --workers 1 --backend-store-uri {uri}\n"
        "Predict a video of your own:\n"
        f"  {programs / 'mien'} predict VIDEO --model {model.package}\n"
        "Train on your own videos: docs/tutorials/bring_your_own_videos.md"
    )
