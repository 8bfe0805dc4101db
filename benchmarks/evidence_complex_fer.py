"""Learning compound classes one after another: what forgets, what remembers, over orders and seeds.

A seed draws the people of training and test and the network, which learns the basic expressions
once; an order is the order of the compound classes. Every variant goes on from the same network,
trains the same parts (the projection and the head) for as many steps, and is scored on people never
seen. Schedules are fixed: no epoch is chosen by any score. Clips are decoded once, mirrored at
random, and trained from memory as maps of the frozen convolutions (``complex_study.py``). Variants
that are there already are not run again (``--folder``), and every seed has had an order before any
has its next, so a study can be stopped, reported as far as it went (``--report``) and continued;
variants are compared over the sequences that both have. ``--quick`` shows the way with a few clips,
its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from complex_study import (
    COMPOUNDS,
    FromBasics,
    FromMaps,
    Loader,
    Start,
    Study,
    add_study_arguments,
    opened_study,
    trained,
)
from numpy.typing import NDArray
from report import finish

from mien.evaluate.continual import forgetting, intransigence, score_stages
from mien.evaluate.continual_plots import plot_over_stages
from mien.media.storage import write_bytes_atomically
from mien.seeds import seed_torch
from mien_models.complex_fer import ComplexFerConfig
from mien_models.complex_fer.config import (
    DistillationConfig,
    HeadConfig,
    MemoryConfig,
    PhaseConfig,
    Selector,
    StreamPlan,
)
from mien_models.contract import OptimPlan

PER_CLASS = 8
"""Clips of a class that every variant with a memory keeps."""
NO_TEACHER = DistillationConfig(teachers="none")
PUBLISHED = DistillationConfig()
BOTH = DistillationConfig(
    teachers="both", weight=0.5, decay_stages=None, temperature=2.0, scale_by_square=True
)


def _settings(
    teachers: DistillationConfig,
    selector: Selector | None,
    start: Literal["random", "compositional"],
) -> dict[str, Any]:
    """Of a variant: teachers, what chooses its memory (None: it has none), how a class begins."""
    head = HeadConfig(dropout=0.2, start=start)
    if selector is None:
        return {"distillation": teachers, "memory": MemoryConfig(budget="none"), "head": head}
    memory = MemoryConfig(per_class=PER_CLASS, selector=selector, batch_size=12)
    return {"distillation": teachers, "memory": memory, "head": head}


VARIANTS: Mapping[str, dict[str, Any]] = {
    "published": _settings(PUBLISHED, "psmr_logit", "random"),
    "ours": _settings(BOTH, "herding", "compositional"),
    "icarl": _settings(replace(BOTH, teachers="previous"), "herding", "random"),
    "replay_only": _settings(NO_TEACHER, "psmr_logit", "random"),
    "distillation_only": _settings(BOTH, None, "random"),
    "fine_tune": _settings(NO_TEACHER, None, "random"),
    "joint": {},
    "joint_short": {},
    "ours_random_start": _settings(BOTH, "herding", "random"),
    "ours_psmr": _settings(BOTH, "psmr_logit", "compositional"),
    "ours_random_clips": _settings(BOTH, "random", "compositional"),
}
"""Trainings. One with a memory is scored twice, with its linear head and with iCaRL's nearest mean
of remembered clips, which changes nothing in the training. ``icarl`` has iCaRL's memory and
teacher, with softmax for its sigmoids."""
OURS, PUBLISHED_RUN, ICARL = "ours/nearest_mean", "published/head", "icarl/nearest_mean"
UPPER = "joint/head"
JOINT = {"joint_short": 1, "joint": 4}
"""All compound classes in one stage, beside all basic clips, and its steps as a multiple of the
steps of a whole sequence. ``joint_short`` has as many, which is too few for an upper bound."""
_STILL = OptimPlan(lr=0.0, weight_decay=0.0, schedule="constant")
"""An optimiser that changes nothing."""


def configure(study: Study, order_seed: int, variant: str) -> ComplexFerConfig:
    """A variant's settings, going on from a network that knows the basics."""
    base = ComplexFerConfig.tiny()
    later = PhaseConfig(
        trunk=("project.*",),
        batch_size=4,
        epochs=1,
        steps_per_epoch=study.later_steps,
        optim=OptimPlan(lr=1e-3, warmup_fraction=0.05),
    )
    config = replace(
        base,
        basic=replace(base.basic, epochs=1, steps_per_epoch=1, optim=_STILL),
        later=later,
        batch_norm="frozen",
        classes=StreamPlan(order_seed=order_seed),
    )
    if variant in JOINT:
        steps = JOINT[variant] * study.later_steps * len(COMPOUNDS)
        config = replace(
            config,
            classes=StreamPlan(classes_per_stage=len(COMPOUNDS)),
            later=replace(later, batch_size=8, steps_per_epoch=steps),
            distillation=NO_TEACHER,
            memory=MemoryConfig(per_class=10_000, selector="random", batch_size=8),
            head=HeadConfig(dropout=0.2),
        )
    # Without a memory there are no means.
    config = replace(config, classifier="head", **VARIANTS[variant])
    has_memory = config.memory.budget != "none"
    return replace(config, classifier="nearest_mean" if has_memory else "head")


def run_variant(
    study: Study, seed: int, order: int, name: str, load: Callable[[], Start]
) -> dict[str, dict[str, Any]]:
    """Scores of a variant in one order by what answers, from its file where it ran before."""
    place = _place(study, seed, order, name)
    if not place.exists():
        method = train_on_maps(configure(study, order, name), load(), seed)
        reports = {"head": method.head_reports or method.stage_reports()}
        if method.head_reports:
            reports["nearest_mean"] = method.stage_reports()
        found = {answer: score_stages(of, "test").to_json() for answer, of in reports.items()}
        write_bytes_atomically(str(place), json.dumps(found).encode())
    return dict(json.loads(place.read_text()))


def _place(study: Study, seed: int, order: int, name: str) -> Path:
    """A run's file; learning all classes at once has no order."""
    order = 0 if name in JOINT else order
    return study.folder / f"seed{seed}" / f"order{order}" / f"{name}.json"


def train_on_maps(config: ComplexFerConfig, start: Start, seed: int) -> FromBasics:
    """The method after its training on the frozen convolutions' maps."""
    seed_torch(seed, "build")
    method = FromMaps(config, start.classes)
    method.basics = start.basics
    trained(method, start.maps, seed)
    return method


def check_maps(study: Study, load: Callable[[], Start]) -> float:
    """The largest difference of an accuracy between training on maps and on frames (``ours``)."""
    place = study.folder / "maps_less_frames.json"
    if not place.exists():
        start, config = load(), configure(study, 0, "ours")
        seed_torch(0, "build")
        method = FromBasics(config, start.classes)
        method.basics = start.basics
        trained(method, start.clips, 0)
        on_frames = score_stages(method.stage_reports(), "test").recall_TS
        on_maps = score_stages(train_on_maps(config, start, 0).stage_reports(), "test").recall_TS
        largest = float(np.nanmax(np.abs(on_maps - on_frames)))
        write_bytes_atomically(str(place), json.dumps(largest).encode())
    return float(json.loads(place.read_text()))


FIGURES = (
    *("final_macro", "aia", "forgetting", "bwt", "learning_accuracy"),
    *("recall/first", "recall/later"),
)


Runs = dict[tuple[int, int], dict[str, Any]]
"""Scores by seed and order."""


def summarise(values: Mapping[str, Runs]) -> dict[str, Any]:
    """Mean and deviation over runs of what is asked of each variant; ours against the others."""
    figures: dict[str, Any] = {}
    for name, runs in values.items():
        # Learning all classes at once has no order: its run of a seed counts once.
        own = [run for (_, order), run in runs.items() if order == 0 or not _is_joint(name)]
        figures[f"{name}/runs"] = len(own)
        for key in FIGURES:
            figures |= _mean_and_sd(f"{name}/{key}", [run["figures"][key] for run in own])
        if not _is_joint(name) and UPPER in values:
            pairs = _pairs(runs, values[UPPER])
            missed = [_intransigence(*pair) for pair in pairs]
            figures |= _mean_and_sd(f"{name}/intransigence", missed)
    for other in values if OURS in values else ():
        for key in ("final_macro", "forgetting"):
            # Forgetting of two stages is no forgetting of seven.
            if other != OURS and not (_is_joint(other) and key == "forgetting"):
                figures |= compare(values[OURS], values[other], other, key)
    return figures


def _pairs(one: Runs, other: Runs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs of the same sequences."""
    return [(one[key], other[key]) for key in one if key in other]


def _mean_and_sd(name: str, values: Sequence[float]) -> dict[str, float]:
    spread = {f"{name}_sd": round(statistics.stdev(values), 4)} if len(values) > 1 else {}
    return {name: round(statistics.fmean(values), 4), **spread} if values else {}


def _is_joint(name: str) -> bool:
    return name.split("/")[0] in JOINT


def compare(ours: Runs, theirs: Runs, other: str, key: str) -> dict[str, Any]:
    """Ours less another variant, run by run: mean, deviation, and how often ours is better."""
    gains = [one["figures"][key] - two["figures"][key] for one, two in _pairs(ours, theirs)]
    better = [gain < 0 if key == "forgetting" else gain > 0 for gain in gains]
    name = f"ours_less_{other}/{key}"
    return {**_mean_and_sd(name, gains), f"{name}_wins": sum(better), f"{name}_runs": len(gains)}


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


CURVES = (
    *(OURS, PUBLISHED_RUN, ICARL, "ours/head", "published/nearest_mean"),
    *("replay_only/head", "distillation_only/head", "fine_tune/head"),
)


def save_curves(values: Mapping[str, Runs], folder: Path) -> None:
    """Accuracy and forgetting over the stages, as pictures beside the runs."""
    staged = {name: list(values[name].values()) for name in CURVES if name in values}
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
    add_study_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="runs nothing, reports what is there")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    with opened_study(args) as study:
        seeds, orders = (1, 1) if args.quick else (args.seeds, args.orders)
        names = ["published", "ours", "fine_tune"] if args.quick else list(args.variants)
        loaders = [Loader(study, seed) for seed in range(seeds)]
        largest = check_maps(study, loaders[0])
        if not args.report:
            run_all(study, loaders, orders, names)
        values = read_runs(study, seeds, orders)
        save_curves(values, study.folder)
    figures = {"seeds": seeds, "orders": orders, "steps_a_class": study.later_steps}
    figures |= {"maps_less_frames/recall_max": round(largest, 4), **summarise(values)}
    targets = {
        "ours ends ahead of published": (f"ours_less_{PUBLISHED_RUN}/final_macro", ">=", 0.0),
        "ours forgets less than published": (f"ours_less_{PUBLISHED_RUN}/forgetting", "<=", 0.0),
        "ours within 5 points of joint": (f"ours_less_{UPPER}/final_macro", ">=", -0.05),
    }
    kept = {name: target for name, target in targets.items() if target[0] in figures}
    finish("evidence_complex_fer", figures, kept, quick=args.quick)


def run_all(study: Study, loaders: Sequence[Loader], orders: int, names: Sequence[str]) -> None:
    """Runs what is missing, in the same sequence of orders and seeds for all."""
    for order in range(orders):
        for seed, load in enumerate(loaders):
            for name in names:
                for answer, found in run_variant(study, seed, order, name, load).items():
                    shown = {key: round(found["figures"][key], 4) for key in FIGURES[:3]}
                    line = {"seed": seed, "order": order, "variant": f"{name}/{answer}", **shown}
                    print(json.dumps(line), flush=True)


def read_runs(study: Study, seeds: int, orders: int) -> dict[str, Runs]:
    """Scores of all runs that are there, by variant and what answers."""
    values: dict[str, Runs] = defaultdict(dict)
    for name, order, seed in itertools.product(VARIANTS, range(orders), range(seeds)):
        place = _place(study, seed, order, name)
        if place.exists():
            for answer, found in json.loads(place.read_text()).items():
                values[f"{name}/{answer}"][seed, order] = found
    return values


if __name__ == "__main__":
    main()
