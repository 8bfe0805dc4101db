"""What two workers of complex_fer decide together is what one decides alone."""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mien.train.stage_run import select_trainable
from mien_models.complex_fer import ComplexFer, ComplexFerConfig
from mien_models.complex_fer.config import HeadConfig, MemoryConfig, TrunkConfig
from mien_models.contract import ClipBatch, Progress, plain_batch

CLASSES = ("anger", "angrily_surprised", "surprise")


def clips(labels: list[int], seed: int) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(256, (len(labels), 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    ids = [f"clip{seed}-{index}" for index in range(len(labels))]
    return dataclasses.replace(plain_batch(video, clip_ids=ids), label_B=torch.tensor(labels))


def share_of(batch: ClipBatch, rank: int, workers: int) -> ClipBatch:
    return batch.rows(rank * len(batch) // workers, (rank + 1) * len(batch) // workers)


def train(rank: int, workers: int, *, is_joined: bool = True) -> dict[str, Any]:
    """Both stages, a few steps each; what a worker ends with."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        ComplexFerConfig.tiny(),
        image_size_px=16,
        border_px=0,
        num_frames=2,
        trunk=TrunkConfig(name="conv", widths=(6, 8), grid=2, dim=8),
        head=HeadConfig(start="compositional"),
        memory=MemoryConfig(per_class=3, selector="herding", batch_size=4),
    )
    method = ComplexFer(config, CLASSES)

    def scan(spec: Any) -> list[ClipBatch]:
        labels = [CLASSES.index(name) for name in spec.labels for _ in range(6)]
        # An odd share: workers need not have equally many clips.
        whole = clips(labels, seed=len(labels) + 100 * labels[0])
        cut = len(whole) // 3 if workers > 1 else len(whole)
        return [whole.rows(0, cut) if rank == 0 else whole.rows(cut, len(whole))]

    for index, new in enumerate(([0, 2, 0, 2], [1, 1, 1, 1])):
        method.begin_stage(index)
        stage = method.stage(index)
        assert stage is not None
        trainable = select_trainable(method, stage)
        module = DistributedDataParallel(method) if workers > 1 and is_joined else method
        optimizer = torch.optim.SGD(trainable.values(), lr=0.05)
        for step in range(3):
            batches = {"new": share_of(clips(new, seed=step), rank, workers)}
            if index:
                batches["replay"] = share_of(clips([0, 2, 2, 0], seed=10 + step), rank, workers)
            method.train()
            optimizer.zero_grad()
            progress = Progress(stage=index, epoch=0, step=step, total_steps=3)
            module(batches, progress).loss.backward()
            optimizer.step()
        method.end_stage(scan)
    return {"tensors": method.state_dict(), "json": method.json_state()}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_workers_end_where_one_does(two_workers):
    alone = train(0, 1)
    chosen = [one["clip_id"] for one in alone["json"]["memory"]["exemplars"]]
    for ended in two_workers:
        assert [one["clip_id"] for one in ended["json"]["memory"]["exemplars"]] == chosen
        assert ended["json"]["reports"] == alone["json"]["reports"]
        for name, tensor in alone["tensors"].items():
            torch.testing.assert_close(
                ended["tensors"][name], tensor, rtol=1e-4, atol=1e-5, msg=name
            )


def test_the_comparison_would_see_a_worker_that_knows_its_own_half_alone(two_workers):
    half = train(0, 2, is_joined=False)
    joined = two_workers[0]
    assert half["json"]["reports"] != joined["json"]["reports"]
    name = "network.head.blocks.1.weight"
    assert not torch.allclose(half["tensors"][name], joined["tensors"][name], rtol=1e-4)
