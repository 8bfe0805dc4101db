"""What two workers decide together is what one decides alone: rules, batch norm, contrasts."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mien_models.contract import ClipBatch, Progress, plain_batch
from mien_models.dtm import Dtm, DtmConfig
from mien_models.dtm.config import LossConfig, Rule, ThresholdConfig, TrunkConfig

RULES: tuple[Rule, ...] = ("dtm", "ada_cm", "fixmatch", "flexmatch", "freematch", "softmatch")
STEPS = 3


def make_method(rule: Rule) -> Dtm:
    torch.manual_seed(0)
    config = dataclasses.replace(
        DtmConfig.tiny(),
        image_size_px=16,
        border_px=0,
        num_frames=2,
        trunk=TrunkConfig(name="conv", widths=(6, 8), grid=2, dim=8),
        dropout=0.0,
        threshold=ThresholdConfig(
            rule=rule, floor=0.0, start=0.35, tau=0.36, evidence="running", rho=0.5, momentum=0.5
        ),
        losses=LossConfig(negative=0.1, fairness=0.01 if rule == "freematch" else 0.0),
        distribution_alignment=rule == "softmatch",
        alignment_momentum=0.5,
    )
    return Dtm(config, ("happy", "sad", "angry")).train()


def make_batches(step: int) -> dict[str, ClipBatch]:
    generator = torch.Generator().manual_seed(step)

    def pictures(size: int) -> Tensor:
        shape = (size, 2, 3, 16, 16)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    labelled = plain_batch(pictures(4), clip_ids=tuple("abcd"))
    unlabelled = plain_batch(pictures(8), clip_ids=tuple("efghijkl"))
    view = unlabelled.views[0]
    views = (view, *(dataclasses.replace(view, video_BTCHW=pictures(8)) for _ in range(2)))
    return {
        "labelled": dataclasses.replace(labelled, label_B=torch.tensor([0, 1, 2, 0])),
        "unlabelled": dataclasses.replace(unlabelled, views=views),
    }


def train(rule: Rule, rank: int, workers: int, *, is_joined: bool = True) -> dict[str, Any]:
    """A few steps of this worker's share; what it ends with."""
    method = make_method(rule)
    module = method
    if workers > 1 and is_joined:
        module = DistributedDataParallel(method, forward_sync_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    for step in range(STEPS):
        batches = {
            name: batch.rows(rank * len(batch) // workers, (rank + 1) * len(batch) // workers)
            for name, batch in make_batches(step).items()
        }
        optimizer.zero_grad()
        module(batches, Progress(stage=0, epoch=step, step=step, total_steps=STEPS)).loss.backward()
        optimizer.step()
        method.after_step()

    def scan(spec: object) -> list[ClipBatch]:
        batch = make_batches(0)["labelled"]
        return [batch.rows(rank * 4 // workers, (rank + 1) * 4 // workers)]

    notes = method.end_epoch(scan)
    assert notes is not None
    state = method.state_dict() | {
        name: parameter.grad for name, parameter in method.named_parameters()
    }
    return {"tensors": state, "json": method.json_state(), "logs": dict(notes.logs)}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save([train(rule, rank, 2) for rule in RULES], folder / f"{rank}.pt")
    dist.destroy_process_group()


def run_two(target: Callable[[int, Path], None], folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("workers")
    run_two(work, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("rule", RULES)
def test_two_workers_end_where_one_does(
    rule: Rule, two_workers: list[list[dict[str, Any]]]
) -> None:
    alone = train(rule, 0, 1)
    for ended in two_workers:
        found = ended[RULES.index(rule)]
        assert found["json"] == alone["json"]
        assert found["logs"] == pytest.approx(alone["logs"], abs=1e-5)
        for name, tensor in alone["tensors"].items():
            torch.testing.assert_close(
                found["tensors"][name], tensor, rtol=1e-4, atol=1e-5, msg=name
            )


@pytest.mark.parametrize("rule", ["dtm", "flexmatch", "freematch", "softmatch"])
def test_the_comparison_would_see_a_worker_that_knows_its_own_half_alone(
    rule: Rule, two_workers: list[list[dict[str, Any]]]
) -> None:
    name = "rule.thresholds_K"
    joined = two_workers[0][RULES.index(rule)]
    alone = train(rule, 0, 2, is_joined=False)

    assert not torch.equal(joined["tensors"][name], make_method(rule).rule.thresholds_K)
    if rule == "flexmatch":  # counts clips by their ids
        assert joined["json"] != alone["json"]
    else:
        found, other = joined["tensors"][name], alone["tensors"][name]
        assert not torch.allclose(found, other, rtol=1e-4, atol=1e-5)
