"""The dictionary: order, identities, and that all workers hold the same one."""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mien_models.clp import Clp, ClpConfig
from mien_models.clp.config import PretrainConfig, ReconstructionConfig, TrunkConfig
from mien_models.clp.dictionary import UNKNOWN, KeyDictionary
from mien_models.contract import ClipBatch, Progress, plain_batch

STEPS = 4
CLIPS = 6


def keys(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None]


def added(dictionary: KeyDictionary, numbers: list[float], subjects: list[int]) -> None:
    rows = keys(*numbers)
    dictionary.add(rows, torch.tensor(subjects), torch.ones(len(rows)).bool())


def test_first_in_first_out() -> None:
    dictionary = KeyDictionary(4, 1)
    assert not dictionary.filled_N.any()
    added(dictionary, [1, 2, 3], [7, 8, 9])
    assert dictionary.filled_N.tolist() == [True, True, True, False]
    added(dictionary, [4, 5], [7, 8])
    assert dictionary.keys_NE.flatten().tolist() == [5, 2, 3, 4]
    assert dictionary.subject_N.tolist() == [8, 8, 9, 7]
    added(dictionary, [10, 11, 12, 13, 14, 15], [1, 2, 3, 4, 5, 6])
    assert sorted(dictionary.keys_NE.flatten().tolist()) == [12, 13, 14, 15]
    assert sorted(dictionary.subject_N.tolist()) == [3, 4, 5, 6]


def test_frames_that_are_not_usable_stay_out() -> None:
    dictionary = KeyDictionary(4, 1)
    dictionary.add(keys(1, 2, 3), torch.tensor([7, 8, 9]), torch.tensor([True, False, True]))
    assert dictionary.subject_N.tolist()[:2] == [7, 9]
    assert dictionary.filled_N.sum() == 2


def test_only_keys_that_certainly_show_somebody_else() -> None:
    dictionary = KeyDictionary(5, 1)
    added(dictionary, [1, 2, 3, 4], [7, 8, UNKNOWN, 7])
    found = dictionary.of_others(torch.tensor([7, 8, UNKNOWN, 99]))
    assert found.tolist() == [
        [False, True, False, False, False],
        [True, False, False, True, False],
        [False, False, False, False, False],
        [True, True, False, True, False],
    ]


def make_method() -> Clp:
    torch.manual_seed(0)
    pretrain = PretrainConfig(
        num_frames=3,
        stride_frames=1,
        dim=4,
        momentum=0.9,
        dictionary_size=40,
        reconstruction=ReconstructionConfig(warmup_epochs=1, top_k=6),
        instance_weight=0.5,
    )
    config = dataclasses.replace(
        ClpConfig.tiny(),
        image_size_px=16,
        border_px=0,
        trunk=TrunkConfig(name="conv", widths=(6, 8), grid=2, dim=8),
        pretrain=pretrain,
    )
    return Clp(config, ("happy", "sad")).train()


def make_batch(step: int) -> ClipBatch:
    random = torch.Generator().manual_seed(step)

    def pictures() -> Tensor:
        return torch.randint(0, 256, (CLIPS, 3, 3, 16, 16), dtype=torch.uint8, generator=random)

    batch = plain_batch(pictures(), clip_ids=tuple("abcdef"))
    times = torch.arange(3.0).expand(CLIPS, 3)
    has_face = torch.rand(CLIPS, 3, generator=random) < 0.9
    views = tuple(
        dataclasses.replace(
            batch.views[0], video_BTCHW=pictures(), frame_times_BT=times, has_face_BT=has_face
        )
        for _ in range(2)
    )
    # As large as the platform's: hashes of names.
    subject = torch.randint(0, 4, (CLIPS,), generator=random) + (1 << 62)
    return dataclasses.replace(batch, views=views, subject_B=subject)


def train(rank: int, workers: int, *, is_joined: bool = True) -> dict[str, Tensor]:
    """What a worker's state is after a few steps on its share."""
    method = make_method()
    module = method
    if workers > 1 and is_joined:
        for name, parameter in method.named_parameters():
            parameter.requires_grad_(name.startswith("network."))
        module = DistributedDataParallel(method, forward_sync_buffers=False)
    optimizer = torch.optim.SGD(method.network.parameters(), lr=0.1)
    size = CLIPS // workers
    for step in range(STEPS):
        batch = make_batch(step).rows(rank * size, (rank + 1) * size)
        optimizer.zero_grad()
        progress = Progress(stage=0, epoch=step, step=step, total_steps=STEPS)
        module({"clips": batch}, progress).loss.backward()
        optimizer.step()
        method.after_step()
    return method.state_dict()


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_hold_the_dictionary_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name in ("keys_NE", "subject_N", "next_place"):
        assert torch.equal(first[f"pretraining.dictionary.{name}"],
                           second[f"pretraining.dictionary.{name}"])  # fmt: skip
    alone = train(0, 1)
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    # A worker that knows its own half alone would be noticed.
    half = train(0, 2, is_joined=False)["pretraining.dictionary.subject_N"]
    assert not torch.equal(half, alone["pretraining.dictionary.subject_N"])


def test_the_momentum_encoder_follows() -> None:
    method = make_method()
    before = {name: p.detach().clone() for name, p in method.network.named_parameters()}
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(1.0)
    method.after_step()
    assert method.pretraining is not None
    after = method.pretraining.momentum.network.state_dict()
    for name, start in before.items():
        torch.testing.assert_close(after[name], start + 0.1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epoch", [0, 1])
def test_nothing_is_rebuilt_while_the_dictionary_warms_up(epoch: int) -> None:
    method = make_method()
    for step in range(2):
        progress = Progress(stage=0, epoch=epoch, step=step, total_steps=2)
        logs = method({"clips": make_batch(step)}, progress).logs
        method.after_step()
    assert (logs["reconstruction_loss"] > 0) == (epoch == 1)
    assert logs["temporal_loss"] > 0
