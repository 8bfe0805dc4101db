"""Planted label noise and planted hard clips, told apart on small moving pictures.

A clip shows one of four marks for a while, on changing noise. A fifth of the labels is
wrong; a fifth of the clips shows two marks, one after the other, and is hard: whichever of the two
is its label, none is wrong.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mien_models.contract import ClipBatch, Progress, plain_batch
from mien_models.rdfer import Rdfer, RdferConfig
from mien_models.rdfer.config import AgreementConfig, KeyConfig, LongTermConfig, TrunkConfig

CLASSES = ("up", "down", "left", "right")
FRAMES, SIDE, CLIPS, EPOCHS, BATCH = 12, 16, 240, 7, 24
CORNERS = ((2, 2), (2, 10), (10, 2), (10, 10))
CONFIG = dataclasses.replace(
    RdferConfig.tiny(),
    image_size_px=SIDE,
    border_px=0,
    num_frames=FRAMES,
    synopsis_frames=6,
    motion_gain=None,
    trunk=TrunkConfig(
        name="conv", widths=(8, 16), pool_side=2, width=24, dropout=0.1, project_std=None
    ),
    long_term=LongTermConfig(layers=1, hidden=16, num_heads=2),
    keys=KeyConfig(count=2, frames=2, min_gap_frames=2.0),
    agreement=AgreementConfig(
        flips=False, start=0.3, delta=0.2, cap_per_epoch=0.1, teacher_decay=0.9
    ),
    batch_size=BATCH,
    epochs=EPOCHS,
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    batch: ClipBatch
    is_wrong_N: Tensor
    is_hard_N: Tensor
    true_N: Tensor


def show(video_TCHW: Tensor, mark: int, start: int, stop: int) -> None:
    row, column = CORNERS[mark]
    video_TCHW[start:stop, :, row : row + 4, column : column + 4] += 110.0


def plant(num_clips: int, seed: int) -> Planted:
    generator = torch.Generator().manual_seed(seed)
    video = 60 + 25 * torch.randn(num_clips, FRAMES, 3, SIDE, SIDE, generator=generator)
    true_N = torch.arange(num_clips) % len(CLASSES)
    order = torch.randperm(num_clips, generator=generator)
    is_wrong_N = torch.zeros(num_clips, dtype=torch.bool)
    is_hard_N = torch.zeros(num_clips, dtype=torch.bool)
    is_wrong_N[order[: num_clips // 5]] = True
    is_hard_N[order[num_clips // 5 : 2 * num_clips // 5]] = True
    label_N = true_N.clone()
    for index in range(num_clips):
        mark = int(true_N[index])
        other = (mark + 1 + int(torch.randint(3, (), generator=generator))) % len(CLASSES)
        if is_hard_N[index]:
            first, second = (mark, other) if index % 8 < 4 else (other, mark)
            show(video[index], first, 0, 6)
            show(video[index], second, 6, 12)
        else:
            # Every half of the clip shows some of it.
            start = int(torch.randint(2, 5, (), generator=generator))
            show(video[index], mark, start, start + 6)
        if is_wrong_N[index]:
            label_N[index] = other
    ids = [f"clip{index:03d}" for index in range(num_clips)]
    batch = plain_batch(video.clamp(0, 255).to(torch.uint8), clip_ids=ids)
    batch = dataclasses.replace(batch, label_B=label_N, seed_B=torch.arange(num_clips))
    return Planted(batch=batch, is_wrong_N=is_wrong_N, is_hard_N=is_hard_N, true_N=true_N)


def rows(batch: ClipBatch, chosen: Tensor) -> ClipBatch:
    part = batch.map_tensors(lambda tensor: tensor[chosen])
    return dataclasses.replace(part, clip_ids=tuple(batch.clip_ids[i] for i in chosen.tolist()))


def train(config: RdferConfig, planted: Planted, epochs: int = EPOCHS) -> Rdfer:
    torch.manual_seed(0)
    method = Rdfer(config, CLASSES)
    method.begin_stage(0)
    optimizer = torch.optim.AdamW(method.parameters(), lr=4e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    step = 0
    for epoch in range(epochs):
        method.train()
        for chosen in torch.randperm(CLIPS, generator=generator).split(BATCH):
            batch = rows(planted.batch, chosen)
            batch = dataclasses.replace(batch, seed_B=batch.seed_B + 1000 * epoch)
            progress = Progress(stage=0, epoch=epoch, step=step, total_steps=EPOCHS * 10)
            optimizer.zero_grad()
            method({"clips": batch}, progress).loss.backward()
            optimizer.step()
            method.after_step()
            step += 1
        method.end_epoch(lambda spec: [planted.batch])
    return method.eval()


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(CLIPS, seed=3)


@pytest.fixture(scope="module")
def trained(planted: Planted) -> Rdfer:
    return train(CONFIG, planted)


def verdicts(method: Rdfer, planted: Planted, verdict: str) -> Tensor:
    assert method.ledger is not None
    records = method.ledger.records
    return torch.tensor([records[name].verdict == verdict for name in planted.batch.clip_ids])


def test_wrong_labels_are_found(trained: Rdfer, planted: Planted) -> None:
    found_N = verdicts(trained, planted, "noisy")
    hits = int((found_N & planted.is_wrong_N).sum())
    precision, recall = hits / max(1, int(found_N.sum())), hits / int(planted.is_wrong_N.sum())
    print(f"precision {precision:.2f}, recall {recall:.2f}")
    assert precision >= 0.8
    assert recall >= 0.7


def test_relabels_are_right(trained: Rdfer, planted: Planted) -> None:
    assert trained.ledger is not None
    records = [trained.ledger.records[name] for name in planted.batch.clip_ids]
    changed = [
        (record.relabelled_to, int(true))
        for record, true in zip(records, planted.true_N, strict=True)
        if record.relabelled_to is not None
    ]
    assert len(changed) >= 15
    assert sum(new == true for new, true in changed) / len(changed) >= 0.8


def test_hard_clips_are_kept(trained: Rdfer, planted: Planted) -> None:
    """They scatter, and keep their labels."""
    hard_N = verdicts(trained, planted, "hard")
    noisy_N = verdicts(trained, planted, "noisy")
    print(f"hard clips called hard {hard_N[planted.is_hard_N].float().mean():.2f}")
    assert float(noisy_N[planted.is_hard_N].float().mean()) <= 0.15
    others_N = ~planted.is_hard_N
    share, elsewhere = (float(hard_N[which].float().mean()) for which in (~others_N, others_N))
    assert share >= 0.5
    assert share >= 3 * elsewhere


def test_keys_are_where_the_mark_is(planted: Planted) -> None:
    """Clips that show their mark for two frames alone; instances that don't hear of each other."""
    config = dataclasses.replace(
        CONFIG,
        synopsis_frames=FRAMES,
        trunk=dataclasses.replace(CONFIG.trunk, shift_share=0.0),
        long_term=LongTermConfig(layers=0, hidden=16, num_heads=0),
        agreement=None,
    )
    method = train(config, planted, epochs=5)
    generator = torch.Generator().manual_seed(1)
    video = 60 + 25 * torch.randn(40, FRAMES, 3, SIDE, SIDE, generator=generator)
    starts_N = torch.randint(0, FRAMES - 1, (40,), generator=generator)
    for index, start in enumerate(starts_N.tolist()):
        show(video[index], index % len(CLASSES), start, start + 2)
    batch = plain_batch(video.clamp(0, 255).to(torch.uint8))
    with torch.no_grad():
        positions_NF = method.key_frames(batch).flatten(1)
    # Two keys of two frames, evenly placed, are at 2, 3 and 8, 9.
    places = (positions_NF, torch.tensor([2.0, 3.0, 8.0, 9.0]).expand(40, -1))
    middle_N1 = (starts_N + 0.5)[:, None]
    hit, even = (float(((p - middle_N1).abs().amin(1) <= 0.5).float().mean()) for p in places)
    print(f"hits {hit:.2f}, evenly placed {even:.2f}")
    assert hit >= 0.85
    assert hit >= even + 0.2
