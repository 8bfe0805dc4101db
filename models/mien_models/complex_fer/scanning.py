"""Plain passes at the end of a stage: clips to choose from, and counts of right and wrong.

Shape legend: B clips, N clips of all workers, S classes learnt so far, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mien_models.complex_fer.model import Reading
from mien_models.complex_fer.selection import Candidates
from mien_models.contract import ClipBatch
from mien_models.layers.worker_sums import gather_objects, sum_over_workers


def read_clips(network: nn.Module, batch: ClipBatch) -> Reading:
    """What the network says about a batch."""
    view = batch.views[0]
    reading: Reading = network(view.video_BTCHW, view.has_face_BT)
    return reading


@torch.no_grad()
def collect_candidates(
    network: nn.Module, batches: Iterable[ClipBatch], class_index: int, device: torch.device
) -> Candidates:
    """All workers' clips of one class with the network's logits and features, sorted by clip id.

    Args:
        network: in evaluation mode.
        batches: this worker's share.
        class_index: the class's place among those learnt.
        device: the network's.
    """
    mine: list[tuple[str, list[float], list[float], int, int]] = []
    for batch in batches:
        reading = read_clips(network, batch.to(device))
        rows = (
            reading.logits_BS.float().tolist(),
            reading.features_BD.float().tolist(),
            batch.subject_B.tolist(),
            batch.seed_B.tolist(),
        )
        mine.extend(zip(batch.clip_ids, *rows, strict=True))
    everyones = sorted(gather_objects(mine))
    return Candidates(
        clip_ids=tuple(row[0] for row in everyones),
        logits_NS=torch.tensor([row[1] for row in everyones]),
        features_ND=torch.tensor([row[2] for row in everyones]),
        subject_N=torch.tensor([row[3] for row in everyones], dtype=torch.int64),
        seed_N=torch.tensor([row[4] for row in everyones], dtype=torch.int64),
        class_index=class_index,
    )


@torch.no_grad()
def count_confusions(
    answer: Callable[[ClipBatch], Tensor], batches: Iterable[ClipBatch], place_K: Tensor
) -> tuple[tuple[int, ...], ...]:
    """All workers' clips by true and predicted class, [S, S] in the order of learning.

    Args:
        answer: gives logits [B, S].
        batches: this worker's share; clips of learnt classes only.
        place_K: where a class stands among those learnt.
    """
    size = int(place_K.max()) + 1
    counts_SS = torch.zeros(size, size, dtype=torch.int64, device=place_K.device)
    for batch in batches:
        batch = batch.to(place_K.device)
        predicted_B = answer(batch).argmax(dim=1)
        cell_B = place_K[batch.label_B] * size + predicted_B
        counts_SS += torch.bincount(cell_B, minlength=size * size).reshape(size, size)
    return tuple(tuple(row) for row in sum_over_workers(counts_SS).tolist())
