"""What CLP's pretraining brings on the built-in clips: action units of people never seen.

A seed draws the people of training and test, the order and all initial weights. Each variant makes
an encoder (``random``: as it starts; ``moco``, ``tcl``, ``cir``, ``both``: pretrained without
labels for the same number of steps; ``supervised``: trained on all labels), which then stays as it
is. Read out of its frame features, by the same code for all of them:

* ``au_f1``: F1 of 12 units (threshold 0.5, mean over units, all test frames together) of a linear
  probe, on people never seen, by share of the training clips whose labels it got;
* ``identity``: accuracy of a linear probe that names the test people, trained on half of their
  clips, tested on frames of the other half (lower: less of the person in the features);
* ``pose``: R2 of the head's yaw, pitch and roll (mean of the three) read linearly from clips of
  test people whom the regression has not seen;
* ``uar``: of the seven expressions, read linearly from the mean over a clip's frames, learnt on the
  training people, on the test people (transfer to classes);
* ``retrieval``: units in common (Jaccard) of a frame and its five nearest frames of other people,
  and ``same_person_nearest``: how often the nearest frame of another clip shows the same person.

Results that are there already are not made again (``--folder``); ``--quick`` shows the way with a
few clips, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import finish
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from mien.clips.manifest import Manifest
from mien.evaluate.probes import regression_probe
from mien.media.storage import write_bytes_atomically
from mien.seeds import derive_seed, seed_torch
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien.train.launch import train
from mien_jobs import overrides
from mien_jobs.caching import complete_cache
from mien_jobs.methods import load_method, make_recipe
from mien_jobs.probing import POSE_COLUMNS
from mien_jobs.training import PreparedRun, fetch_package, prepare, with_data
from mien_models.clp import Clp
from mien_models.clp.config import UnitConfig
from mien_models.clp.model import Readout
from mien_models.clp.units import UnitCounts, presence, presence_loss, weights_of

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "random": (),
    "supervised": ("config.pretrain=none", "config.probe=none"),
    "moco": (
        "config.pretrain.temporal.weight=0",
        "config.pretrain.reconstruction.weight=0",
        "config.pretrain.instance_weight=1",
    ),
    "tcl": ("config.pretrain.reconstruction.weight=0",),
    "cir": ("config.pretrain.temporal.weight=0",),
    "both": (),
}
LABEL_SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
UNITS = UnitConfig(max_present_weight=4.0)
_NEAREST = 5


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where everything lies and how much of it there is."""

    clips: Path
    folder: Path
    steps: int
    """Of a pretraining, and of the supervised training."""
    quick: bool

    def run(self, seed: int, name: str) -> PreparedRun:
        """A run of ``tiny`` without Ray, on the people that the seed draws; its clips cached."""
        recipe = with_data(make_recipe("clp", "tiny"), str(self.clips), name)
        recipe = replace(recipe, storage=str(self.folder / f"seed{seed}"))
        pretrained = [] if name == "supervised" else ["config.probe=none", "config.finetune=none"]
        fixed = [
            *pretrained,
            f"data.split_seed={seed}",
            f"train.seed={seed}",
            f"data.cache={self.folder / 'cache'}",
            "train.workers=0",
            "track.uri=off",
            "data.test_fraction=0.3",
        ]
        stage = "finetune" if name == "supervised" else "pretrain"
        # One epoch of warm-up is a quarter of the pretraining.
        length = [f"config.{stage}.epochs=4", f"config.{stage}.steps_per_epoch={self.steps // 4}"]
        small = ["config.pretrain.batch_size=4", "config.finetune.batch_size=4"] * self.quick
        small = [setting for setting in small if stage in setting]
        # Epochs of one step look dead to the monitor.
        small += ["config.pretrain.collapse.patience_epochs=0"] * (self.quick and name == "both")
        changes = [*fixed, *length, *small, *VARIANTS[name]]
        run = prepare(overrides.apply_overrides(recipe, changes))
        data = complete_cache(run.data, run.recipe.data, run.streams, decode_on=None, say=print)
        return replace(run, data=data, job=replace(run.job, loading=data.loading))


def make_encoder(run: PreparedRun, seed: int, name: str) -> Clp:
    """The encoder of a variant, in the method that holds it."""
    config, classes = run.recipe.config, run.data.label_set.classes
    if name == "random":
        seed_torch(seed)
        return Clp(config, classes)
    train(run.job)
    _, method = load_method(fetch_package(run.job), features_only=True)
    assert isinstance(method, Clp)
    return method


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Features and truth of a split's clips. N clips, T frames, D features, U units."""

    features_NTD: Tensor
    present_NTU: Tensor
    subject_N: Tensor
    clip_ids: tuple[str, ...]
    manifest: Manifest

    @property
    def clip_features_ND(self) -> Tensor:
        """Mean over the frames."""
        return self.features_NTD.mean(dim=1)

    def column(self, name: str) -> list[Any]:
        """What the manifest says of each clip."""
        return self.manifest.by_ids(self.clip_ids).column(name)

    def of(self, chosen_N: Tensor) -> Frames:
        """Some of the clips."""
        ids = tuple(c for c, keep in zip(self.clip_ids, chosen_N.tolist(), strict=True) if keep)
        return Frames(
            features_NTD=self.features_NTD[chosen_N],
            present_NTU=self.present_NTU[chosen_N],
            subject_N=self.subject_N[chosen_N],
            clip_ids=ids,
            manifest=self.manifest,
        )


@torch.inference_mode()
def read_frames(method: Clp, run: PreparedRun, split: str) -> Frames:
    """Frame features of a split's clips, at the centres of eight equal segments."""
    method.eval()
    data = run.data
    source = ClipSource(data.manifest, data.split, data.label_set, seed=0, plan=data.loading)
    spec = replace(method.prediction_stream(), action_units=UNITS.names)
    spec = spec.for_prediction(split)  # type: ignore[arg-type]
    batches = list(source.scan(spec))
    features = [method.predict(batch).frame_features_BTD for batch in batches]
    units = [batch.action_units_BTU for batch in batches]
    return Frames(
        features_NTD=torch.cat([part for part in features if part is not None]),
        present_NTU=torch.cat([presence(u, UNITS.present_from) for u in units if u is not None]),
        subject_N=torch.cat([batch.subject_B for batch in batches]),
        clip_ids=tuple(clip for batch in batches for clip in batch.clip_ids),
        manifest=data.manifest,
    )


def au_f1(known: Frames, asked: Frames, share: float) -> float:
    """Mean F1 over units of CLP's linear probe, learnt from a share of the known clips."""
    hashes = torch.tensor([derive_seed("clip_share", clip) for clip in known.clip_ids])
    chosen_N = torch.zeros(len(hashes), dtype=torch.bool)
    chosen_N[hashes.argsort()[: max(1, round(share * len(hashes)))]] = True
    labelled = known.of(chosen_N)
    seed_torch("probe")
    num_features, num_units = labelled.features_NTD.shape[2], labelled.present_NTU.shape[2]
    probe = Readout(num_features, num_classes=1, num_units=num_units, with_intensity=False)
    counts = UnitCounts(num_units)
    counts.add(labelled.present_NTU)
    weights = weights_of(counts.rate_U, UNITS)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=1e-2)
    has_face_NT = torch.ones(labelled.features_NTD.shape[:2], dtype=torch.bool)
    for _ in range(150):
        optimizer.zero_grad()
        logits = probe(labelled.features_NTD, has_face_NT).unit_logits_BTU
        presence_loss(logits, labelled.present_NTU, *weights).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        has_face_NT = torch.ones(asked.features_NTD.shape[:2], dtype=torch.bool)
        found = probe.eval()(asked.features_NTD, has_face_NT).unit_logits_BTU >= 0
    return mean_f1(found, asked.present_NTU)


def mean_f1(found_NTU: Tensor, present_NTU: Tensor) -> float:
    """2TP / (2TP + FP + FN) of each unit over all frames, then the mean over units."""
    is_present = present_NTU == 1
    is_coded = ~present_NTU.isnan()
    hits_U = (found_NTU & is_present).sum(dim=(0, 1))
    wrong_U = ((found_NTU != is_present) & is_coded).sum(dim=(0, 1))
    return float((2 * hits_U / (2 * hits_U + wrong_U).clamp(min=1)).mean())


def identity_accuracy(frames: Frames) -> float:
    """How often a linear probe names the person in frames of clips that it has not seen."""
    people, person_N = frames.subject_N.unique(return_inverse=True)
    is_test_N = torch.zeros(len(person_N), dtype=torch.bool)
    for person in range(len(people)):
        is_test_N[(person_N == person).nonzero().flatten()[1::2]] = True
    x_NTD = _standardised(frames.features_NTD, frames.features_NTD[~is_test_N])
    seed_torch("identity")
    probe = torch.nn.Linear(x_NTD.shape[2], len(people))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=1e-2)
    wanted_N = person_N[~is_test_N][:, None].expand(-1, x_NTD.shape[1]).flatten()
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(probe(x_NTD[~is_test_N]).flatten(0, 1), wanted_N).backward()
        optimizer.step()
    with torch.inference_mode():
        found_NT = probe(x_NTD[is_test_N]).argmax(dim=2)
    return float((found_NT == person_N[is_test_N][:, None]).float().mean())


def pose_r2(frames: Frames) -> float:
    """Mean R2 over the angles of the head, on people that the regression has not seen."""
    features_ND, people = frames.clip_features_ND.numpy(), frames.column("subject_id")
    probes = [
        regression_probe(name, features_ND, np.asarray(frames.column(name)), people)
        for name in POSE_COLUMNS
    ]
    return statistics.fmean(probe.r2 for probe in probes)


def expression_uar(known: Frames, asked: Frames) -> float:
    """Of a logistic regression on the clips' mean features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(known.clip_features_ND.numpy(), known.column("label"))
    named = model.predict(asked.clip_features_ND.numpy())
    return float(balanced_accuracy_score(asked.column("label"), named))


def retrieval(frames: Frames) -> dict[str, float]:
    """What the frames nearest to each frame (cosine of standardised features) have in common."""
    clips, per_clip = frames.features_NTD.shape[:2]
    x = _standardised(frames.features_NTD, frames.features_NTD).flatten(0, 1)
    cosine = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    person = frames.subject_N.repeat_interleave(per_clip)
    clip = torch.arange(clips).repeat_interleave(per_clip)
    is_other_person = person[:, None] != person[None]
    present = (frames.present_NTU.flatten(0, 1) == 1).float()
    common = present @ present.T
    either = present.sum(dim=1)[:, None] + present.sum(dim=1)[None] - common
    jaccard = common / either.clamp(min=1.0)
    asks = present.any(dim=1)
    nearest = cosine.masked_fill(~is_other_person, -2.0).topk(_NEAREST, dim=1).indices
    in_others = cosine.masked_fill(clip[:, None] == clip[None], -2.0).argmax(dim=1)
    return {
        "retrieval": float(jaccard.gather(1, nearest)[asks].mean()),
        "retrieval_by_chance": float(jaccard[asks][is_other_person[asks]].mean()),
        "same_person_nearest": float((person[in_others] == person).float().mean()),
    }


def _standardised(features_NTD: Tensor, of_NTD: Tensor) -> Tensor:
    mean_D, std_D = of_NTD.mean(dim=(0, 1)), of_NTD.std(dim=(0, 1))
    return (features_NTD - mean_D) / std_D.clamp(min=1e-6)


def score(study: Study, seed: int, name: str) -> dict[str, float]:
    """All figures of one variant with one seed; kept in a file."""
    place = study.folder / f"seed{seed}" / f"{name}.json"
    if not place.exists():
        run = study.run(seed, name)
        method = make_encoder(run, seed, name)
        known, asked = (read_frames(method, run, split) for split in ("train", "test"))
        figures = {f"au_f1_{share:.0%}": au_f1(known, asked, share) for share in LABEL_SHARES}
        figures |= {"identity": identity_accuracy(asked), "pose": pose_r2(asked)}
        figures |= {"uar": expression_uar(known, asked), **retrieval(asked)}
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(str(place), json.dumps(figures, indent=2).encode())
    found: dict[str, float] = json.loads(place.read_text())
    return found


def summary(scores: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Mean and deviation over the seeds; what ``both`` is ahead of the others (paired by seed)."""
    figures: dict[str, float] = {}
    for name, runs in scores.items():
        for key in runs[0]:
            values = [run[key] for run in runs]
            figures[f"{key}/{name}"] = round(statistics.fmean(values), 4)
            if len(values) > 1:
                figures[f"sd/{key}/{name}"] = round(statistics.stdev(values), 4)
    for other in sorted(set(scores) - {"both"}) if "both" in scores else ():
        shares = (f"au_f1_{share:.0%}" for share in LABEL_SHARES)
        for key in (*shares, "retrieval", "identity", "pose", "uar"):
            ahead = [a[key] - b[key] for a, b in zip(scores["both"], scores[other], strict=True)]
            figures[f"{key}/both_less_{other}"] = round(statistics.fmean(ahead), 4)
    return figures


def main() -> None:
    """Runs what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="of a pretraining")
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        clips = args.clips or make_clips(folder / "clips", quick=args.quick)
        study = Study(
            clips=clips.absolute(),
            folder=folder,
            steps=4 if args.quick else args.steps,
            quick=args.quick,
        )
        names = ["random", "both"] if args.quick else list(args.variants)
        scores: dict[str, list[dict[str, float]]] = {}
        for seed in range(1 if args.quick else args.seeds):
            for name in names:
                scores.setdefault(name, []).append(score(study, seed, name))
                shown = {key: round(value, 4) for key, value in scores[name][-1].items()}
                print(json.dumps({"seed": seed, "variant": name, **shown}), flush=True)
    num_seeds = len(next(iter(scores.values())))
    figures = {"seeds": num_seeds, "steps": study.steps, **summary(scores)}
    targets = {
        f"both beats {other} on action units": (f"au_f1_100%/both_less_{other}", ">=", 0.0)
        for other in ("moco", "tcl", "random")
    } | {
        f"both knows the person less than {other}": (f"identity/both_less_{other}", "<=", 0.0)
        for other in ("moco", "tcl", "random")
    }
    targets = {name: target for name, target in targets.items() if target[0] in figures}
    finish("evidence_clp", figures, targets, quick=args.quick)


def make_clips(folder: Path, *, quick: bool) -> Path:
    """The demo's kind of clips: 200 people, or a handful."""
    spec = SynthSpec(num_subjects=200, nuisance=0.5, min_intensity=0.7, seed=7)
    if quick:
        spec = replace(spec, num_subjects=9, classes=spec.classes[:2], duration_s=1.2)
    if not (folder / "manifest.parquet").exists():
        write_dataset(spec, folder)
    return folder / "manifest.parquet"


if __name__ == "__main__":
    main()
