"""Which parts of MMA-DFER help on the built-in clips: each left out in turn, over three seeds.

A seed draws the people of training and test, the order and all initial weights. Its encoders are
learnt once (the autoencoder stage of ``tiny``) and then taken as given by every variant, so that
variants differ in what they change alone. Scores are UAR on people never seen. Runs that are there
already are not run again (``--folder``); ``--quick`` shows the way with a few clips, its figures
mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import finish

from mien.evaluate.metrics import score_logits
from mien.evaluate.predictions import Predictions, read_predictions
from mien.seeds import derive_seed
from mien.synth import SynthSpec, write_dataset
from mien.train.launch import train
from mien.weights.part_file import PartFacts, write_part
from mien_jobs import overrides
from mien_jobs.caching import complete_cache
from mien_jobs.methods import load_method, make_recipe
from mien_jobs.recipe import Recipe
from mien_jobs.training import fetch_package, prepare, run_training, with_data
from mien_models.contract import Stage
from mien_models.layers.vit_weights import published_names
from mien_models.mma_dfer import MmaDfer, MmaDferConfig

PARTS = ("video_encoder", "audio_encoder")
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "no_prompts": ("config.prompts.per_stage=0",),
    "no_progressive_offsets": ("config.prompts.progressive=false",),
    "no_fusion": ("config.fusion.blocks=none",),
    "one_way_fusion": ("config.fusion.operator=one_way",),
    "no_temporal_block": ("config.temporal.depth=0",),
    "positions_frozen": ("config.train_positions=false",),
    "audio_only": ("config.drop_video=1.0", "config.drop_audio=0.0"),
    "video_only": ("config.drop_video=0.0", "config.drop_audio=1.0"),
    "no_modality_dropout": ("config.drop_video=0.0", "config.drop_audio=0.0"),
}
CONDITION = {"audio_only": "audio", "video_only": "video"}
"""What a variant is shown in the test; the others see and hear."""
MISSING_SHARES = (0.0, 0.5, 1.0)
"""Of test clips whose sound is taken away."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where everything lies and how much of it there is."""

    clips: Path
    folder: Path
    quick: bool

    def recipe(self, seed: int, name: str, changes: Sequence[str]) -> Recipe:
        """A run of ``tiny`` without Ray, on the people that the seed draws."""
        recipe = with_data(make_recipe("mma_dfer", "tiny"), str(self.clips), name)
        recipe = replace(recipe, storage=str(self.folder / f"seed{seed}"))
        fixed = [
            f"data.split_seed={seed}",
            f"train.seed={seed}",
            f"data.cache={self.folder / 'cache'}",
            "train.workers=0",
            "track.uri=off",
        ]
        # The readout is learnt anew, so a little longer than the preset, which has it from before.
        epochs = f"config.epochs={1 if self.quick else 10}"
        return overrides.apply_overrides(recipe, [*fixed, epochs, *changes])


class EncodersOnly(MmaDfer):
    """The first stage of ``tiny`` alone."""

    def stage(self, index: int) -> Stage | None:
        """Only ``autoencoder``."""
        return super().stage(index) if index == 0 else None


@dataclass(frozen=True)
class BuildEncoders:
    """Builds :class:`EncodersOnly`, importable by the loop."""

    config: MmaDferConfig
    classes: tuple[str, ...]

    def __call__(self) -> MmaDfer:
        """The method with fresh weights."""
        return EncodersOnly(self.config, self.classes)


def learn_encoders(study: Study, seed: int) -> list[str]:
    """Learns both encoders and writes them as parts; returns the settings that use them."""
    places = {part: study.folder / f"seed{seed}" / f"{part}.safetensors" for part in PARTS}
    if not all(place.exists() for place in places.values()):
        short = ["config.autoencoder.epochs=1"] if study.quick else []
        run = prepare(study.recipe(seed, "encoders", short))
        complete_cache(run.data, run.recipe.data, run.streams, decode_on=None, say=print)
        run = prepare(run.recipe)
        config, classes = run.recipe.config, run.data.label_set.classes
        train(replace(run.job, build_method=BuildEncoders(config, classes)))
        _, method = load_method(fetch_package(run.job))
        for part, place in places.items():
            facts = PartFacts(kind="tiny", part=part, licence="Apache-2.0", source_sha256="")
            assert isinstance(method, MmaDfer)
            write_part(str(place), facts, published_names(getattr(method.network, part)))
    return [f"weights.{part}={place}" for part, place in places.items()]


def run_variant(study: Study, seed: int, name: str, given: Sequence[str]) -> Predictions:
    """Test predictions of one variant with one seed's encoders."""
    changes = ["config.autoencoder=none", *given, *VARIANTS[name]]
    recipe = study.recipe(seed, name, changes)
    place = Path(recipe.storage) / name / "predictions-test.parquet"
    if not place.exists():
        run_training(prepare(recipe), say=lambda line: None)
    return read_predictions(str(place))


def uar(found: Predictions, condition: str) -> float:
    """UAR of one condition."""
    part = found.of_modality(condition)
    return _uar(part, part.column("logits"))


def uar_without_sound(found: Predictions, share: float) -> float:
    """UAR when the sound of a share of the clips is missing; which ones is a hash of their id."""
    both, seen = found.of_modality("video+audio"), found.of_modality("video")
    if both.table["clip_id"] != seen.table["clip_id"]:
        raise ValueError("the conditions list their clips in different orders")
    clip_ids = both.table["clip_id"].to_pylist()
    draw_N = np.array([derive_seed("missing sound", clip) % 1000 / 1000 for clip in clip_ids])
    is_silent_N1 = (draw_N < share)[:, None]
    return _uar(both, np.where(is_silent_N1, seen.column("logits"), both.column("logits")))


def _uar(found: Predictions, logits_NK: NDArray[np.float64]) -> float:
    true_N = found.column("true_index")
    return score_logits(logits_NK, true_N, found.label_set.classes).uar


def summary(values: Mapping[str, list[float]]) -> dict[str, float]:
    """Mean and deviation over the seeds, and the mean loss against ``full`` (paired by seed)."""
    figures: dict[str, float] = {}
    for name, scores in values.items():
        figures[f"uar/{name}"] = round(statistics.fmean(scores), 4)
        figures[f"sd/{name}"] = round(statistics.stdev(scores), 4) if len(scores) > 1 else 0.0
        if name in VARIANTS and name != "full":
            lost = [whole - part for whole, part in zip(values["full"], scores, strict=True)]
            figures[f"lost_without/{name}"] = round(statistics.fmean(lost), 4)
    return figures


def main() -> None:
    """Runs what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        clips = args.clips or make_clips(folder / "clips", quick=args.quick)
        study = Study(clips=clips.absolute(), folder=folder, quick=args.quick)
        seeds = range(1 if args.quick else args.seeds)
        names = ["full", "no_fusion"] if args.quick else list(args.variants)
        values: dict[str, list[float]] = {}
        for seed in seeds:
            given = learn_encoders(study, seed)
            for name in names:
                found = run_variant(study, seed, name, given)
                score = uar(found, CONDITION.get(name, "video+audio"))
                values.setdefault(name, []).append(score)
                print(
                    json.dumps({"seed": seed, "variant": name, "uar": round(score, 4)}), flush=True
                )
                if name == "full":
                    for share in MISSING_SHARES:
                        key = f"full_sound_missing_{share:.0%}"
                        values.setdefault(key, []).append(uar_without_sound(found, share))
    figures = {"seeds": len(seeds), **summary(values)}
    targets = {
        f"{name} helps": (f"lost_without/{name}", ">=", 0.0) for name in names if name != "full"
    }
    finish("evidence_mma_dfer", figures, targets, quick=args.quick)


def make_clips(folder: Path, *, quick: bool) -> Path:
    """The demo's kind of clips: 110 people, or a handful."""
    spec = SynthSpec(num_subjects=6 if quick else 110, nuisance=0.5, min_intensity=0.7, seed=7)
    if not (folder / "manifest.parquet").exists():
        write_dataset(spec, folder)
    return folder / "manifest.parquet"


if __name__ == "__main__":
    main()
