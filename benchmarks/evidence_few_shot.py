"""One compound class from a few clips: the published figure beside honest ones.

A network learns the basic expressions (as in ``evidence_complex_fer.py``, whose ``--folder`` and
networks it shares); then each compound class in turn is learnt from K clips on its features, by
every learner of :mod:`mien.evaluate.few_shot`, over 100 draws. Rows are means over the classes.
``--quick`` shows the way with a few clips, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from complex_study import (
    ClipsInMemory,
    Loader,
    Study,
    add_study_arguments,
    basic_network,
    opened_study,
)
from evidence_complex_fer import PER_CLASS
from report import finish
from torch import nn

from mien.evaluate.few_shot import LEARNERS, SHOTS, FewShotTask, score_learner
from mien.media.storage import write_bytes_atomically
from mien_models.complex_fer import ComplexFer


def later(method: ComplexFer) -> list[str]:
    """Classes that the basic network does not know."""
    return [name for phase in method.schedule[1:] for name in phase.classes]


def few_shot_task(method: ComplexFer, clips: ClipsInMemory, new: str) -> FewShotTask:
    """A new class beside the basics; queries are of people never seen."""
    known = method.learnt
    plain = replace(method.prediction_stream().for_prediction("all"), labelled=True)

    def read(split: Any, labels: tuple[str, ...]) -> tuple[Any, Any]:
        batches = list(clips.scan(replace(plain, split=split, labels=labels)))
        with torch.no_grad():
            features = torch.cat([method.predict(batch).features_BD for batch in batches])
        names = [method.classes[index] for batch in batches for index in batch.label_B.tolist()]
        order = (*known, new)
        return features.double().numpy(), np.asarray([order.index(name) for name in names])

    support, _ = read("train", (new,))
    query, true = read("test", (*known, new))
    remembered, classes = read("train", known)
    kept = np.concatenate([np.flatnonzero(classes == c)[:PER_CLASS] for c in range(len(known))])
    rows = cast(nn.Linear, cast(nn.ModuleList, method.network.head.blocks)[0])
    return FewShotTask(
        support_ND=support,
        query_QD=query,
        true_Q=true,
        weight_CD=rows.weight.detach().double().numpy(),
        bias_C=rows.bias.detach().double().numpy(),
        replay_MD=remembered[kept],
        replay_class_M=classes[kept],
    )


def few_shot_row(learner: str, shots: int, tasks: Mapping[str, FewShotTask]) -> dict[str, Any]:
    """A learner's scores, averaged over the new classes; intervals over all of their draws."""
    found = [score_learner(learner, task, shots=shots) for task in tasks.values()]
    row: dict[str, Any] = {"learner": learner, "K": shots, "draws": sum(one.draws for one in found)}
    row["base_before"] = round(statistics.fmean(one.base_before for one in found), 4)
    for name in ("new_recall", "base_after", "harmonic_mean", "auroc"):
        parts = [getattr(one, name) for one in found]
        row[name] = round(statistics.fmean(part.mean for part in parts), 4)
        # Classes are fixed, draws are independent: variances of the means add.
        reach = sum(((part.high - part.low) / 2) ** 2 for part in parts) ** 0.5 / len(parts)
        row[f"{name}_reach"] = round(reach, 4)
    return row


def main() -> None:
    """Scores what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_study_arguments(parser)
    args = parser.parse_args()
    with opened_study(args) as study:
        rows = score_all(study)
    figures: dict[str, Any] = {"rows": rows}
    for row in rows:
        figures[f"{row['learner']}/{row['K']}/harmonic_mean"] = row["harmonic_mean"]
    best = max(("replay", "prototypes"), key=lambda name: figures[f"{name}/1/harmonic_mean"])
    figures["gain_over_published_at_1"] = round(
        figures[f"{best}/1/harmonic_mean"] - figures["published/1/harmonic_mean"], 4
    )
    targets = {"a baseline is no worse than the published": ("gain_over_published_at_1", ">=", 0.0)}
    finish("evidence_few_shot", figures, targets, quick=args.quick)


def score_all(study: Study) -> list[dict[str, Any]]:
    """A row a learner and K; each is kept in the study's folder."""
    rows: list[dict[str, Any]] = []
    tasks: dict[str, FewShotTask] = {}
    for shots in SHOTS[:1] if study.quick else SHOTS:
        for learner in LEARNERS:
            place = study.folder / "few_shot" / f"{learner}-{shots}.json"
            if not place.exists():
                if not tasks:
                    start = Loader(study, 0)()
                    method = basic_network(start.classes, start.basics)
                    names = later(method)
                    tasks = {name: few_shot_task(method, start.clips, name) for name in names}
                row = few_shot_row(learner, shots, tasks)
                write_bytes_atomically(str(place), json.dumps(row).encode())
            rows.append(json.loads(place.read_text()))
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    main()
