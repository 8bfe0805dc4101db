"""Learning compound classes one after another: what forgets, what remembers, over orders and seeds.

A seed draws the people of training and test and the network, which learns the basic expressions
once; an order is the order of the compound classes. Every variant goes on from the same network,
trains the same parts (the projection and the head) for as many steps, and is scored on people never
seen. Schedules are fixed: no epoch is chosen by any score. Clips are decoded once and trained from
memory, mirrored at random. Variants that are there already are not run again (``--folder``);
``--quick`` shows the way with a few clips, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import finish
from torch import Tensor

from mien.evaluate.continual import forgetting, intransigence, score_stages
from mien.evaluate.continual_plots import plot_over_stages
from mien.media.storage import write_bytes_atomically
from mien.seeds import seed_torch
from mien.stream.order import ClipOrder
from mien.stream.quarantine import Quarantine
from mien.stream.select import select_clips
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.loop import fit
from mien.train.plan import TrainPlan
from mien.train.world import World
from mien_jobs import overrides
from mien_jobs.caching import complete_cache
from mien_jobs.data import RunData
from mien_jobs.methods import make_recipe
from mien_jobs.training import PreparedRun, prepare, with_data
from mien_models.complex_fer import ComplexFer, ComplexFerConfig
from mien_models.complex_fer.config import (
    DistillationConfig,
    HeadConfig,
    MemoryConfig,
    PhaseConfig,
    StreamPlan,
)
from mien_models.contract import ClipBatch, OptimPlan, StreamSpec
from mien_models.layers.clip_random import clip_uniform

PER_CLASS = 8
"""Clips of a class that every variant with a memory keeps."""
NO_TEACHER = DistillationConfig(teachers="none")
PUBLISHED = DistillationConfig()
BOTH = DistillationConfig(
    teachers="both", weight=0.5, decay_stages=None, temperature=2.0, scale_by_square=True
)
NOTHING_KEPT = MemoryConfig(budget="none")
COMPOUNDS = (
    *("happily_surprised", "happily_disgusted", "sadly_angry"),
    *("sadly_fearful", "fearfully_surprised", "angrily_surprised"),
)


def memory(selector: Any) -> MemoryConfig:
    """The memory of every variant that has one, but for its selector."""
    return MemoryConfig(per_class=PER_CLASS, selector=selector, batch_size=12)


def head(start: Any) -> HeadConfig:
    """The head, but for how a new class begins."""
    return HeadConfig(dropout=0.2, start=start)


VARIANTS: Mapping[str, dict[str, Any]] = {
    "fine_tune": {"distillation": NO_TEACHER, "memory": NOTHING_KEPT, "head": head("random")},
    "published": {
        "distillation": PUBLISHED,
        "memory": memory("psmr_logit"),
        "head": head("random"),
    },
    "ours": {"distillation": BOTH, "memory": memory("herding"), "head": head("compositional")},
    "replay_only": {
        "distillation": NO_TEACHER,
        "memory": memory("psmr_logit"),
        "head": head("random"),
    },
    "distillation_only": {"distillation": BOTH, "memory": NOTHING_KEPT, "head": head("random")},
    "joint": {},
    "ours_random_start": {
        "distillation": BOTH,
        "memory": memory("herding"),
        "head": head("random"),
    },
    "ours_psmr": {
        "distillation": BOTH,
        "memory": memory("psmr_logit"),
        "head": head("compositional"),
    },
    "ours_random_clips": {
        "distillation": BOTH,
        "memory": memory("random"),
        "head": head("compositional"),
    },
    "icarl_style": {
        "distillation": replace(BOTH, teachers="previous"),
        "memory": memory("herding"),
        "head": head("random"),
    },
}
"""``joint``: all compound classes in one stage, beside all basic clips, as many steps in all.
``icarl_style`` has iCaRL's memory and teacher but no nearest-mean classifier."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where everything lies and how much of it there is."""

    clips: Path
    folder: Path
    quick: bool

    @property
    def basic_steps(self) -> int:
        """Steps in which the basic expressions are learnt."""
        return 10 if self.quick else 360

    @property
    def later_steps(self) -> int:
        """Steps of a compound class."""
        return 3 if self.quick else 50

    def prepared(self, seed: int) -> PreparedRun:
        """The people that a seed draws, with their clips in a cache."""
        recipe = with_data(make_recipe("complex_fer", "tiny"), str(self.clips), f"seed{seed}")
        fixed = [
            f"data.split_seed={seed}",
            "data.val_fraction=0.05",
            "data.test_fraction=0.3",
            f"data.cache={self.folder / 'cache'}",
            "train.workers=0",
            "track.uri=off",
        ]
        run = prepare(replace(overrides.apply_overrides(recipe, fixed), storage=str(self.folder)))
        data = complete_cache(run.data, run.recipe.data, run.streams, use_ray=False, say=print)
        return replace(run, data=data)

    def config(self, order_seed: int, variant: str) -> ComplexFerConfig:
        """A variant's settings, going on from a network that knows the basics."""
        base = ComplexFerConfig.tiny()
        basic = replace(base.basic, epochs=1, steps_per_epoch=1, optim=_STILL)
        later = PhaseConfig(
            trunk=("project.*",),
            batch_size=4,
            epochs=1,
            steps_per_epoch=self.later_steps,
            optim=OptimPlan(lr=1e-3, warmup_fraction=0.05),
        )
        config = replace(
            base,
            basic=basic,
            later=later,
            batch_norm="frozen",
            classes=StreamPlan(order_seed=order_seed),
        )
        if variant != "joint":
            return replace(config, **VARIANTS[variant])
        return replace(
            config,
            classes=StreamPlan(classes_per_stage=len(COMPOUNDS)),
            later=replace(later, batch_size=8, steps_per_epoch=self.later_steps * len(COMPOUNDS)),
            distillation=NO_TEACHER,
            memory=MemoryConfig(per_class=10_000, selector="random", batch_size=8),
            head=head("random"),
        )


_STILL = OptimPlan(lr=0.0, weight_decay=0.0, schedule="constant")
"""An optimiser that changes nothing."""


class FromBasics(ComplexFer):
    """Starts with the weights of a network that has learnt the basic expressions."""

    basics: Mapping[str, Tensor] = {}

    def begin_stage(self, index: int) -> None:
        """Puts the weights in when the head has its first rows."""
        super().begin_stage(index)
        if index == 0 and self.basics:
            self.load_state_dict(self.basics)


class ClipsInMemory:
    """All clips of a run as tensors, in the orders that the platform draws."""

    def __init__(self, data: RunData, spec: StreamSpec, seed: int) -> None:
        self.quarantine = Quarantine()
        self._data, self._seed = data, seed
        source = ClipSource(data.manifest, data.split, data.label_set, seed=seed, plan=data.loading)
        self._parts = list(source.scan(spec.for_prediction("all")))
        self._place = {
            clip_id: (part, row)
            for part, batch in enumerate(self._parts)
            for row, clip_id in enumerate(batch.clip_ids)
        }

    def num_clips(self, spec: StreamSpec) -> int:
        """Clips that a stream holds."""
        return len(self._ids(spec))

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        """Whole batches in one pass."""
        return self._order(spec).steps_per_epoch

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        """Training batches, each clip mirrored or not."""
        ids, order = self._ids(spec), self._order(spec)
        for step in range(start_step, start_step + num_steps):
            _, chosen = order.batch(step)
            batch = self.take([ids[clip] for clip in chosen])
            draw_B = clip_uniform(batch.seed_B + step, 1, stream=3)[:, 0]
            yield _mirrored(batch, draw_B < 0.5)

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        """One plain pass."""
        ids = self._ids(spec)
        for start in range(0, len(ids), 64):
            yield self.take(ids[start : start + 64])

    def take(self, ids: Sequence[str]) -> ClipBatch:
        """Clips by id."""
        rows = [self._parts[part].rows(row, row + 1) for part, row in map(self._place.get, ids)]
        return _joined(rows)

    def _ids(self, spec: StreamSpec) -> list[str]:
        data = self._data
        found = select_clips(data.manifest, data.split, data.label_set, spec)
        return [ref.clip_id for ref in found.refs()]

    def _order(self, spec: StreamSpec) -> ClipOrder:
        data = self._data
        found = select_clips(data.manifest, data.split, data.label_set, spec)
        return ClipOrder(spec, labels=found.labels, subjects=found.subjects, seed=self._seed)


def _joined(rows: Sequence[ClipBatch]) -> ClipBatch:
    first = rows[0]
    view = first.views[0]

    def cat(pick: Callable[[ClipBatch], Tensor]) -> Tensor:
        return torch.cat([pick(row) for row in rows])

    return replace(
        first,
        clip_ids=tuple(row.clip_ids[0] for row in rows),
        views=(
            replace(
                view,
                video_BTCHW=cat(lambda row: row.views[0].video_BTCHW),
                frame_times_BT=cat(lambda row: row.views[0].frame_times_BT),
                has_face_BT=cat(lambda row: row.views[0].has_face_BT),
            ),
        ),
        audio_frames_B=cat(lambda row: row.audio_frames_B),
        has_audio_B=cat(lambda row: row.has_audio_B),
        label_B=cat(lambda row: row.label_B),
        soft_label_BK=cat(lambda row: row.soft_label_BK),
        subject_B=cat(lambda row: row.subject_B),
        seed_B=cat(lambda row: row.seed_B),
    )


def _mirrored(batch: ClipBatch, is_turned_B: Tensor) -> ClipBatch:
    view = batch.views[0]
    turned = view.video_BTCHW.flip(-1)
    video = torch.where(is_turned_B[:, None, None, None, None], turned, view.video_BTCHW)
    return replace(batch, views=(replace(view, video_BTCHW=video),))


def trained(method: ComplexFer, clips: ClipsInMemory, seed: int) -> ComplexFer:
    """The method after its training, in this process."""
    plan = TrainPlan(seed=seed, workers=0, device="cpu", log_every_steps=10_000)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            method,
            clips=clips,
            plan=plan,
            world=World(),
            store=CheckpointStore(folder),
            tracker=NoTracker(),
            say=lambda line: None,
        )
    return method


def learn_basics(
    study: Study, seed: int, run: PreparedRun, clips: ClipsInMemory
) -> dict[str, Tensor]:
    """Weights after the basic expressions; learnt once a seed."""
    weights = study.folder / f"basics-seed{seed}.pt"
    if not weights.exists():
        config = ComplexFerConfig.tiny()
        basic = replace(config.basic, epochs=1, steps_per_epoch=study.basic_steps)
        seed_torch(seed, "build")
        method = OnlyBasics(replace(config, basic=basic), run.data.label_set.classes)
        trained(method, clips, seed)
        torch.save(method.state_dict(), weights)
    return dict(torch.load(weights, weights_only=True))


class OnlyBasics(ComplexFer):
    """The first stage alone."""

    def stage(self, index: int) -> Any:
        """Only ``basic``."""
        return super().stage(index) if index == 0 else None


def run_variant(
    study: Study, seed: int, order: int, name: str, load: Callable[[], tuple[Any, ...]]
) -> dict[str, Any]:
    """Scores of a variant in one order, from its file where it ran before."""
    order = 0 if name == "joint" else order
    place = study.folder / f"seed{seed}" / f"order{order}" / f"{name}.json"
    if not place.exists():
        run, clips, basics = load()
        seed_torch(seed, "build")
        method = FromBasics(study.config(order, name), run.data.label_set.classes)
        method.basics = basics
        reports = trained(method, clips, seed).stage_reports()
        found = score_stages(reports, "test").to_json()
        write_bytes_atomically(str(place), json.dumps(found).encode())
    return dict(json.loads(place.read_text()))


def summary(values: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Mean and deviation over runs of what is asked of each variant."""
    figures: dict[str, float] = {}
    wanted = (
        *("final_macro", "aia", "forgetting", "bwt", "learning_accuracy"),
        *("recall/first", "recall/later"),
    )
    for name, runs in values.items():
        for key in wanted:
            scores = [run["figures"][key] for run in runs]
            figures[f"{name}/{key}"] = round(statistics.fmean(scores), 4)
            if len(scores) > 1 and key in ("final_macro", "forgetting"):
                figures[f"{name}/{key}_sd"] = round(statistics.stdev(scores), 4)
    for key, other in (("final_macro", "published"), ("forgetting", "published")):
        if {"ours", other} <= values.keys():
            pairs = zip(values["ours"], values[other], strict=True)
            gains = [ours["figures"][key] - theirs["figures"][key] for ours, theirs in pairs]
            figures[f"ours_less_{other}/{key}"] = round(statistics.fmean(gains), 4)
            figures[f"ours_less_{other}/{key}_wins"] = sum(
                gain > 0 if key == "final_macro" else gain < 0 for gain in gains
            )
    for name, runs in values.items() if "joint" in values else ():
        if name != "joint":
            missed = [_intransigence(*pair) for pair in zip(runs, values["joint"], strict=True)]
            figures[f"{name}/intransigence"] = round(statistics.fmean(missed), 4)
    if {"ours", "joint"} <= values.keys():
        figures["joint_less_ours/final_macro"] = round(
            figures["joint/final_macro"] - figures["ours/final_macro"], 4
        )
    return figures


def _intransigence(run: Mapping[str, Any], joint: Mapping[str, Any]) -> float:
    """Of a training class by class, against the same classes learnt at once."""
    recall = dict(zip(joint["classes"], joint["class_recall"][-1], strict=True))
    basics = len(run["classes"]) - (len(run["stages"]) - 1)
    together = [
        statistics.fmean(recall[name] for name in run["classes"][:basics]),
        *(recall[name] for name in run["classes"][basics:]),
    ]
    return intransigence(_matrix(run), together)


def _matrix(run: Mapping[str, Any]) -> NDArray[np.float64]:
    rows = [[np.nan if x is None else x for x in row] for row in run["accuracy_matrix"]]
    return np.asarray(rows, dtype=np.float64)


def save_curves(values: Mapping[str, list[dict[str, Any]]], folder: Path) -> None:
    """Accuracy and forgetting over the stages, as pictures beside the runs."""
    staged = {name: runs for name, runs in values.items() if name != "joint"}
    accuracy = {name: [run["macro_of_learnt"] for run in runs] for name, runs in staged.items()}
    lost = {name: [_forgetting_curve(run) for run in runs] for name, runs in staged.items()}
    for name, curves, label in (
        ("accuracy", accuracy, "mean recall of the classes learnt"),
        ("forgetting", lost, "forgetting (best before - now)"),
    ):
        plot_over_stages(curves, title=f"{name.capitalize()} over stages", y_label=label).savefig(
            folder / f"{name}.png"
        )


def _forgetting_curve(run: Mapping[str, Any]) -> list[float]:
    matrix_TT = _matrix(run)
    later = range(2, len(matrix_TT) + 1)
    return [0.0, *(forgetting(matrix_TT[:size, :size]) for size in later)]


def main() -> None:
    """Runs what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        clips = args.clips or make_clips(folder / "clips", quick=args.quick)
        study = Study(clips=clips.absolute(), folder=folder, quick=args.quick)
        seeds, orders = (1, 1) if args.quick else (args.seeds, args.orders)
        names = ["published", "ours"] if args.quick else list(args.variants)
        loaders = [Loader(study, seed) for seed in range(seeds)]
        values = run_all(study, loaders, orders, names)
        save_curves(values, folder)
    figures = {"seeds": seeds, "orders": orders, **summary(values)}
    targets = {
        "ours ends ahead of published": ("ours_less_published/final_macro", ">=", 0.0),
        "ours forgets less than published": ("ours_less_published/forgetting", "<=", 0.0),
        "ours within 5 points of joint": ("joint_less_ours/final_macro", "<=", 0.05),
    }
    kept = {name: target for name, target in targets.items() if target[0] in figures}
    finish("evidence_complex_fer", figures, kept, quick=args.quick)


class Loader:
    """What the runs of a seed start from, made when the first of them is missing."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._seed = study, seed
        self._made: tuple[Any, ...] = ()

    def __call__(self) -> tuple[Any, ...]:
        """The prepared run, its clips, the weights that know the basics."""
        if not self._made:
            run = self._study.prepared(self._seed)
            clips = ClipsInMemory(run.data, run.job.build_method().prediction_stream(), self._seed)
            basics = learn_basics(self._study, self._seed, run, clips)
            self._made = (run, clips, basics)
        return self._made


def run_all(
    study: Study, loaders: Sequence[Loader], orders: int, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Scores by variant, in the same sequence of seeds and orders for all."""
    values: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed, load in enumerate(loaders):
        for order in range(orders):
            for name in names:
                found = run_variant(study, seed, order, name, load)
                values[name].append(found)
                shown = {key: round(found["figures"][key], 4) for key in ("final_macro", "aia")}
                shown["forgetting"] = round(found["figures"].get("forgetting", 0.0), 4)
                line = {"seed": seed, "order": order, "variant": name, **shown}
                print(json.dumps(line), flush=True)
    return values


def make_clips(folder: Path, *, quick: bool) -> Path:
    """72 people with six basic and six compound expressions, or a handful."""
    spec = SynthSpec(
        num_subjects=10 if quick else 72,
        classes=("happiness", "sadness", "anger", "surprise", "disgust", "fear"),
        compounds=COMPOUNDS[:2] if quick else COMPOUNDS,
        size_px=64 if quick else 128,
        duration_s=0.4 if quick else 1.0,
        fps=15,
        nuisance=0.5,
        min_intensity=0.7,
        seed=8,
        supersample=False if quick else None,
    )
    if not (folder / "manifest.parquet").exists():
        write_dataset(spec, folder)
    return folder / "manifest.parquet"


if __name__ == "__main__":
    main()
