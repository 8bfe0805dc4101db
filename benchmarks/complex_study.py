"""What the evidence of complex_fer stands on: people, clips, networks that know the basics.

A seed draws the people of training and test and a network, which learns the basic expressions once
(all of it trains). From there on its convolutions are frozen in every variant, so their maps of
every clip, plain and mirrored, are made once: :meth:`ClipsInMemory.seen_by`. Training on maps gives
what training on frames gives (``check_maps`` of ``evidence_complex_fer.py`` shows it), many times
as fast.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from memory_clips import fit_here
from torch import Tensor, nn

from mien.seeds import seed_torch
from mien.stream.order import ClipOrder
from mien.stream.quarantine import Quarantine
from mien.stream.select import StreamClips, select_clips
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien.train.plan import TrainPlan
from mien_jobs import overrides
from mien_jobs.caching import complete_cache
from mien_jobs.data import RunData
from mien_jobs.methods import make_recipe
from mien_jobs.training import PreparedRun, prepare, with_data
from mien_models.complex_fer import ComplexFer, ComplexFerConfig
from mien_models.complex_fer.model import CompoundNetwork
from mien_models.contract import ClipBatch, EpochNotes, Scan, StageReport, StreamSpec
from mien_models.layers.clip_random import clip_uniform

COMPOUNDS = (
    *("happily_surprised", "happily_disgusted", "sadly_angry"),
    *("sadly_fearful", "fearfully_surprised", "angrily_surprised"),
)

_TINY = replace(ComplexFerConfig.tiny(), classifier="head")


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
        data = complete_cache(run.data, run.recipe.data, run.streams, decode_on=None, say=print)
        return replace(run, data=data)


class ClipsInMemory:
    """All clips of a run as tensors, in the orders that the platform draws.

    Args:
        data: of the run.
        spec: how clips look.
        seed: of the run.
    """

    def __init__(self, data: RunData, spec: StreamSpec, seed: int) -> None:
        self.quarantine = Quarantine()
        self._data, self._seed = data, seed
        source = ClipSource(data.manifest, data.split, data.label_set, seed=seed, plan=data.loading)
        self._plain = _joined(list(source.scan(spec.for_prediction("all"))))
        self._turned = _with_video(self._plain, self._plain.video_BTCHW.flip(-1))
        self._found: dict[StreamSpec, StreamClips] = {}
        self._place = {clip_id: row for row, clip_id in enumerate(self._plain.clip_ids)}

    def seen_by(self, network: CompoundNetwork) -> ClipsInMemory:
        """The same clips as the maps of a network's convolutions, for :class:`FromMaps`."""
        other = copy.copy(self)
        other._plain = _with_video(self._plain, _maps(network, self._plain))
        other._turned = _with_video(self._turned, _maps(network, self._turned))
        return other

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
            plain = self.take([ids[clip] for clip in chosen])
            turned = _rows(self._turned, [self._place[clip_id] for clip_id in plain.clip_ids])
            is_turned_B = clip_uniform(plain.seed_B + step, 1, stream=3)[:, 0] < 0.5
            choice_B1111 = is_turned_B[:, None, None, None, None]
            mixed = torch.where(choice_B1111, turned.video_BTCHW, plain.video_BTCHW)
            yield _with_video(plain, mixed)

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        """One plain pass."""
        ids = self._ids(spec)
        for start in range(0, len(ids), 64):
            yield self.take(ids[start : start + 64])

    def take(self, ids: Sequence[str]) -> ClipBatch:
        """Clips by id."""
        return _rows(self._plain, [self._place[clip_id] for clip_id in ids])

    def _select(self, spec: StreamSpec) -> StreamClips:
        data = self._data
        if spec not in self._found:
            self._found[spec] = select_clips(data.manifest, data.split, data.label_set, spec)
        return self._found[spec]

    def _ids(self, spec: StreamSpec) -> list[str]:
        return [ref.clip_id for ref in self._select(spec).refs()]

    def _order(self, spec: StreamSpec) -> ClipOrder:
        found = self._select(spec)
        return ClipOrder(spec, labels=found.labels, subjects=found.subjects, seed=self._seed)


def _rows(batch: ClipBatch, rows: Sequence[int]) -> ClipBatch:
    index = torch.tensor(rows)
    part = batch.map_tensors(lambda tensor: tensor[index])
    return replace(part, clip_ids=tuple(batch.clip_ids[row] for row in rows))


def _with_video(batch: ClipBatch, video: Tensor) -> ClipBatch:
    return replace(batch, views=(replace(batch.views[0], video_BTCHW=video),))


def _joined(parts: Sequence[ClipBatch]) -> ClipBatch:
    """All rows of batches of one view, with pictures alone."""
    view = replace(
        parts[0].views[0],
        **{
            name: torch.cat([getattr(part.views[0], name) for part in parts])
            for name in ("video_BTCHW", "frame_times_BT", "has_face_BT")
        },
    )
    columns = ("audio_frames_B", "has_audio_B", "label_B", "soft_label_BK", "subject_B", "seed_B")
    return replace(
        parts[0],
        clip_ids=tuple(clip_id for part in parts for clip_id in part.clip_ids),
        views=(view,),
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns},
    )


@torch.no_grad()
def _maps(network: CompoundNetwork, clips: ClipBatch) -> Tensor:
    """What the trunk's last layer reads, [B, T, C, H, W]."""
    trunk: Any = network.trunk
    parts = []
    for start in range(0, len(clips), 64):
        view = clips.rows(start, start + 64).views[0]
        frames_BTCHW = network.pixels(view.video_BTCHW, view.has_face_BT)
        maps_NCHW = trunk.places(trunk.stages(frames_BTCHW.flatten(0, 1)))
        parts.append(maps_NCHW.unflatten(0, frames_BTCHW.shape[:2]))
    return torch.cat(parts)


class OnlyBasics(ComplexFer):
    """The first stage alone."""

    def stage(self, index: int) -> Any:
        """Only ``basic``."""
        return super().stage(index) if index == 0 else None


class FromBasics(ComplexFer):
    """Starts with the weights of a network that has learnt the basic expressions.

    Where the nearest mean answers, what the linear head would have answered is counted too.
    """

    basics: Mapping[str, Tensor] = {}
    head_reports: tuple[StageReport, ...] = ()

    def begin_stage(self, index: int) -> None:
        """Puts the weights in when the head has its first rows."""
        super().begin_stage(index)
        if index == 0:
            own = self.state_dict()
            self.load_state_dict(own | {k: v for k, v in self.basics.items() if k in own})

    def end_stage(self, scan: Scan) -> EpochNotes | None:
        """Counts with the head as well."""
        notes = super().end_stage(scan)
        nearest, self.nearest = self.nearest, None
        if nearest is not None:
            self.head_reports += (self._report(scan),)
        self.nearest = nearest
        return notes


class _AsGiven(nn.Module):
    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Tensor:
        return video_BTCHW


class FromMaps(FromBasics):
    """The same for clips that are maps already: what makes maps is left out."""

    def __init__(self, config: ComplexFerConfig, classes: tuple[str, ...]) -> None:
        super().__init__(config, classes)
        trunk: Any = self.network.trunk
        self.network.pixels = _AsGiven()  # type: ignore[assignment]
        trunk.stages, trunk.places = nn.Identity(), nn.Identity()


def trained(method: ComplexFer, clips: ClipsInMemory, seed: int) -> ComplexFer:
    """The method after its training, in this process."""
    plan = TrainPlan(seed=seed, workers=0, device="cpu", log_every_steps=10_000)
    fit_here(method, clips, plan)
    return method


def learn_basics(
    study: Study, seed: int, run: PreparedRun, clips: ClipsInMemory
) -> dict[str, Tensor]:
    """Weights after the basic expressions; learnt once a seed."""
    weights = study.folder / f"basics-seed{seed}.pt"
    if not weights.exists():
        basic = replace(_TINY.basic, epochs=1, steps_per_epoch=study.basic_steps)
        seed_torch(seed, "build")
        method = OnlyBasics(replace(_TINY, basic=basic), run.data.label_set.classes)
        trained(method, clips, seed)
        torch.save(method.state_dict(), weights)
    return dict(torch.load(weights, weights_only=True))


def basic_network(classes: tuple[str, ...], basics: Mapping[str, Tensor]) -> OnlyBasics:
    """The network that knows the basics and nothing else."""
    method = OnlyBasics(_TINY, classes)
    method.begin_stage(0)
    method.load_state_dict(dict(basics))
    return method.eval()


@dataclass(frozen=True, kw_only=True)
class Start:
    """What all runs of a seed start from."""

    classes: tuple[str, ...]
    clips: ClipsInMemory
    maps: ClipsInMemory
    """The same clips as the frozen convolutions see them."""
    basics: Mapping[str, Tensor]
    """Weights that know the basics."""


class Loader:
    """What the runs of a seed start from, made when the first of them is missing."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._seed = study, seed
        self._made: Start | None = None

    def __call__(self) -> Start:
        """Reads the clips, learns the basics."""
        if self._made is None:
            run = self._study.prepared(self._seed)
            clips = ClipsInMemory(run.data, run.job.build_method().prediction_stream(), self._seed)
            basics = learn_basics(self._study, self._seed, run, clips)
            classes = run.data.label_set.classes
            maps = clips.seen_by(basic_network(classes, basics).network)
            self._made = Start(classes=classes, clips=clips, maps=maps, basics=basics)
        return self._made


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`opened_study` reads."""
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")


@contextmanager
def opened_study(args: argparse.Namespace) -> Iterator[Study]:
    """The study that the options name; without a folder it is gone at the end."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        clips = args.clips or make_clips(folder / "clips", quick=args.quick)
        yield Study(clips=clips.absolute(), folder=folder, quick=args.quick)


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
