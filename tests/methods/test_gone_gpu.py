"""A run that was trained on a GPU does not quietly go on without one."""

from __future__ import annotations

import pytest
import torch

from mien.train.checkpoint import Checkpoint, CheckpointStore
from mien.train.launch import TrainJob, train
from mien.train.on_ray import train_on_ray
from mien.train.world import DeviceError
from mien_jobs.training import prepare

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def was_on_a_gpu(job: TrainJob) -> TrainJob:
    checkpoint = Checkpoint(model={}, optimizer={}, state={"device": "cuda"})
    CheckpointStore(job.folder).save(0, 1, checkpoint)
    return job


def test_in_this_process(small_recipe):
    job = was_on_a_gpu(prepare(small_recipe("rdfer")).job)
    with pytest.raises(DeviceError, match=r"run 'run' .*was trained on one .* train\.device=cpu"):
        train(job)
    wished = prepare(small_recipe("rdfer", "train.device=cuda", run="wished")).job
    with pytest.raises(DeviceError, match=r"run 'wished' asks for a GPU, .* there is none here"):
        train(wished)


@pytest.mark.ray
def test_on_ray_of_this_machine_alone(small_recipe, local_ray):
    job = was_on_a_gpu(prepare(small_recipe("rdfer", workers=1)).job)
    with pytest.raises(DeviceError, match="was trained on one so far, and there is none here"):
        train_on_ray(job)
    # Not the CPU: where nodes come with the work there may be no GPU yet.
    to_come = prepare(small_recipe("rdfer", "cluster.train.gpus=1", run="to-come", workers=1)).job
    with pytest.raises(DeviceError, match="run 'to-come' asks for a GPU"):
        train_on_ray(to_come)
