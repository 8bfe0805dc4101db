"""Heat maps of networks that learnt compound classes: what they cover, how far to believe them.

Networks are those of ``evidence_complex_fer.py`` (same ``--folder``): after its last stage, each is
put together again with its convolutions and asked about clips of people never seen. The maps of a
compound class are laid over those of the basics it is made of and, as a control, of the other
basics, all on the same clip; ``ours_random_start`` is the control for a head whose compound rows
begin as their basics'. Intervals are over people. ``--quick`` shows the way.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from complex_study import Loader, Start, Study, add_study_arguments, opened_study
from evidence_complex_fer import configure, train_on_maps
from report import finish
from torch import Tensor

from mien.evaluate.heat_sheet import HeatRow, heat_sheet
from mien.media.faces.regions import face_regions
from mien.media.storage import write_bytes_atomically
from mien_models.complex_fer import ComplexFer
from mien_models.complex_fer.compounds import components_of, is_compound
from mien_models.contract import ClipBatch
from mien_models.explain import (
    Heat,
    deletion,
    heat_maps,
    on_picture,
    overlap,
    randomisation_similarity,
    road,
    share_inside,
)

NETWORKS = ("ours", "ours_random_start", "joint")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A network and the clips it is asked about."""

    method: ComplexFer
    clips: ClipBatch

    @property
    def names(self) -> list[str]:
        """The true class of each clip."""
        return [self.method.classes[label] for label in self.clips.label_B.tolist()]


def whole_network(study: Study, start: Start, seed: int, variant: str) -> ComplexFer:
    """A network after its last stage, convolutions and all."""
    config = configure(study, 0, variant)
    on_maps = train_on_maps(config, start, seed)
    method = ComplexFer(config, start.classes)
    method.load_json_state(on_maps.json_state())
    for index in range(len(method.schedule)):
        method.begin_stage(index)
    own, given = method.state_dict(), {**start.basics, **on_maps.state_dict()}
    method.load_state_dict(own | {name: given[name] for name in own})
    return method.eval()


def test_clips(method: ComplexFer, start: Start, per_class: int) -> ClipBatch:
    """Clips of people never seen, as many of each class."""
    spec = method.prediction_stream().for_prediction("test")
    spec = dataclasses.replace(spec, labelled=True)
    ids = []
    for name in method.learnt:
        batches = list(start.clips.scan(dataclasses.replace(spec, labels=(name,))))
        ids += [clip_id for batch in batches for clip_id in batch.clip_ids][:per_class]
    return start.clips.take(ids)


def with_interval(values_B: Tensor, clips: ClipBatch) -> tuple[float, float]:
    """The mean over people of their means over clips, and half its 95 % interval."""
    by_person: dict[int, list[float]] = defaultdict(list)
    for person, value in zip(clips.subject_B.tolist(), values_B.tolist(), strict=True):
        by_person[person].append(value)
    means = [statistics.fmean(values) for values in by_person.values()]
    spread = statistics.stdev(means) if len(means) > 1 else 0.0
    return statistics.fmean(means), 1.96 * spread / len(means) ** 0.5


def compare_with_basics(question: Question) -> dict[str, float]:
    """How alike a compound class's map is to those of its basics, and of the others."""
    rows = [row for row, name in enumerate(question.names) if is_compound(name)]
    clips, names = _rows(question.clips, rows), [question.names[row] for row in rows]
    heat = heat_maps(question.method, clips, clips.label_B)
    basics = [name for name in question.method.learnt if not is_compound(name)]
    likeness_EB = torch.stack(
        [
            overlap(heat.heat_BSRC, _map_of(question.method, clips, name).heat_BSRC)
            for name in basics
        ]
    )
    is_part_EB = torch.tensor(
        [[basic in components_of(name) for name in names] for basic in basics]
    )
    inside_B = (likeness_EB * is_part_EB).sum(0) / is_part_EB.sum(0)
    outside_B = (likeness_EB * ~is_part_EB).sum(0) / (~is_part_EB).sum(0)
    gap, reach = with_interval(inside_B - outside_B, clips)
    return {
        "overlap_with_components": round(float(inside_B.mean()), 4),
        "overlap_with_other_basics": round(float(outside_B.mean()), 4),
        "overlap_gap": round(gap, 4),
        "overlap_gap_reach": round(reach, 4),
        "overlap_gap_clips_above_0": round(float((inside_B > outside_B).float().mean()), 4),
        "compound_clips": len(rows),
    }


def _map_of(method: ComplexFer, clips: ClipBatch, name: str) -> Heat:
    return heat_maps(method, clips, torch.full_like(clips.label_B, method.classes.index(name)))


def _rows(batch: ClipBatch, rows: Sequence[int]) -> ClipBatch:
    part = batch.map_tensors(lambda tensor: tensor[torch.tensor(rows)])
    return dataclasses.replace(part, clip_ids=tuple(batch.clip_ids[row] for row in rows))


def regions(question: Question, heat: Heat) -> dict[str, float]:
    """The heat's share inside the regions of action units against the regions' own."""
    place, size = question.method.picture_layer(), question.clips.video_BTCHW.shape[-1]
    seen = slice(place.border_px, size - place.border_px)
    large_BSHW = on_picture(heat, place, size)[..., seen, seen]
    masks = {name: torch.from_numpy(mask)[seen, seen] for name, mask in face_regions(size).items()}
    masks["any"] = torch.stack(list(masks.values())).any(dim=0)
    found: dict[str, float] = {}
    for name, mask_HW in masks.items():
        heat_B, area_B = share_inside(large_BSHW, mask_HW.expand_as(large_BSHW))
        # A map without heat says nothing of where it lies.
        mean, reach = with_interval(heat_B[heat_B.isfinite()], _rows_where(question, heat_B))
        short = name.replace(" ", "_")
        found[f"heat_in_{short}"] = round(mean, 4)
        found[f"heat_in_{short}_reach"] = round(reach, 4)
        found[f"area_of_{short}"] = round(float(area_B.mean()), 4)
    return found


def _rows_where(question: Question, heat_B: Tensor) -> ClipBatch:
    return _rows(question.clips, heat_B.isfinite().nonzero()[:, 0].tolist())


def faithfulness(question: Question, heat: Heat) -> dict[str, Any]:
    """What taking places away does, by the maps and by drawn ones, and what random weights do."""
    method, clips = question.method, question.clips
    removed, filled = deletion(method, clips, heat), road(method, clips, heat)
    drawn = torch.rand(heat.heat_BSRC.shape, generator=torch.Generator().manual_seed(1))
    control = road(method, clips, dataclasses.replace(heat, heat_BSRC=drawn))
    return {
        "deletion_gain": round(removed.gain, 4),
        "road_gain": round(filled.gain, 4),
        "road_gain_of_drawn_maps": round(control.gain, 4),
        "road_hottest_first": [round(value, 4) for value in filled.hottest_first],
        "road_coldest_first": [round(value, 4) for value in filled.coldest_first],
        "similarity_to_random_weights": round(randomisation_similarity(method, clips, heat), 4),
    }


def explain(question: Question) -> dict[str, Any]:
    """All figures of one network; maps are of the class it answers with."""
    heat = heat_maps(question.method, question.clips)
    hits_B = (heat.class_B == question.clips.label_B).float()
    return {
        "accuracy": round(float(hits_B.mean()), 4),
        "clips": len(question.clips),
        **compare_with_basics(question),
        **regions(question, heat),
        **faithfulness(question, heat),
    }


def sheet(question: Question, compounds: int = 2) -> bytes:
    """PNG: clips rightly seen as compounds, with the maps of the class, its basics and another."""
    method = question.method
    predicted = heat_maps(method, question.clips).class_B.tolist()
    shown: list[HeatRow] = []
    done: list[str] = []
    for row, name in enumerate(question.names):
        is_right = method.classes[predicted[row]] == name
        if not is_right or not is_compound(name) or name in done or len(done) == compounds:
            continue
        done.append(name)
        clip, parts = _rows(question.clips, [row]), components_of(name)
        other = next(x for x in method.learnt if not is_compound(x) and x not in parts)
        shown += [_heat_row(method, clip, each, name) for each in (name, *parts, other)]
    png = io.BytesIO()
    heat_sheet(shown, "Grad-CAM by class").savefig(png, format="png")
    return png.getvalue()


def _heat_row(method: ComplexFer, clip: ClipBatch, name: str, truth: str) -> HeatRow:
    heat = _map_of(method, clip, name)
    probability = heat.logits_BK.softmax(dim=1)[0, heat.class_B[0]]
    large_BSHW = on_picture(heat, method.picture_layer(), clip.video_BTCHW.shape[-1])
    return HeatRow(
        frames_SHWC=clip.video_BTCHW[0].permute(0, 2, 3, 1).numpy(),
        heat_SHW=large_BSHW[0].numpy(),
        times_S=clip.views[0].frame_times_BT[0].numpy(),
        title=f"why {name}? ({float(probability):.2f}; label {truth})",
        note="",
    )


def main() -> None:
    """Explains each network and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_study_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--per-class", type=int, default=10, help="test clips of each class")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.networks, args.per_class = 1, ["ours"], 3
    with opened_study(args) as study:
        found = explain_all(study, args.seeds, args.networks, args.per_class)
    figures: dict[str, Any] = {"seeds": args.seeds}
    for variant, runs in found.items():
        figures |= {f"{variant}/{name}": value for name, value in means_of(runs).items()}
    targets = {
        "a compound's map lies on its basics'": ("ours/overlap_gap", ">=", 0.0),
        "maps point at what the network uses": ("ours/road_gain", ">=", 0.0),
        "maps show what was learnt": ("ours/similarity_to_random_weights", "<=", 0.5),
    }
    kept = {name: target for name, target in targets.items() if target[0] in figures}
    finish("evidence_explain", figures, kept, quick=args.quick)


def explain_all(
    study: Study, seeds: int, networks: Sequence[str], per_class: int
) -> dict[str, list[dict[str, Any]]]:
    """Figures by network, a mapping a seed; the first seed's picture is written."""
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in networks}
    for seed in range(seeds):
        start = Loader(study, seed)()
        for variant in networks:
            method = whole_network(study, start, seed, variant)
            question = Question(method=method, clips=test_clips(method, start, per_class))
            found[variant].append(explain(question))
            print({"seed": seed, "network": variant, **found[variant][-1]}, flush=True)
            if variant == "ours" and seed == 0:
                write_bytes_atomically(str(study.folder / "explain.png"), sheet(question))
    return found


def means_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each figure's mean over seeds; of intervals, the largest."""
    means: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        if isinstance(values[0], list):
            means[name] = [round(statistics.fmean(one), 4) for one in zip(*values, strict=True)]
        else:
            pick = max if name.endswith("_reach") else statistics.fmean
            means[name] = round(pick(values), 4)
    return means


if __name__ == "__main__":
    main()
