"""What a stage of a method needs while it trains: DDP, optimiser, schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mien.train.checkpoint import Tensors
from mien.train.world import World
from mien_models.contract import ClipBatch, Method, OptimPlan, Progress, Stage, StepOutput


class StageRun:
    """A stage in training. Built after ``method.begin_stage``, thrown away when the stage ends."""

    def __init__(
        self,
        method: Method,
        stage: Stage,
        *,
        total_steps: int,
        world: World,
        autocast: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.stage = stage
        self.total_steps = total_steps
        self.method = method
        self.trainable = select_trainable(method, stage)
        self._world = world
        self._autocast = autocast
        module: nn.Module = torch.compile(method) if compile else method  # type: ignore[assignment]
        if world.size > 1:
            module = DistributedDataParallel(module, broadcast_buffers=False)
        self._module = module
        self._optimizer = _build_optimizer(self.trainable, stage)
        self._average: Tensors = {}
        if stage.optim.ema_decay is not None:
            self._average = {name: p.detach().clone() for name, p in self.trainable.items()}

    def step(self, batches: Mapping[str, ClipBatch], progress: Progress) -> dict[str, Tensor]:
        """Forward, backward and update of one global batch; returns scalars for the curves."""
        plan = self.stage.optim
        self.method.train()
        self._optimizer.zero_grad(set_to_none=True)
        parts = list(_micro_batches(batches, plan.accumulate))
        outputs = [
            self._backward(part, progress, share=1 / len(parts), sync=index == len(parts) - 1)
            for index, part in enumerate(parts)
        ]
        grad_norm = nn.utils.clip_grad_norm_(
            self.trainable.values(), plan.clip_norm if plan.clip_norm is not None else math.inf
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(plan, progress.step, self.total_steps, self.stage.epochs)
        self._optimizer.step()
        self._update_average()
        return _mean_logs(outputs) | {"grad_norm": grad_norm.detach()}

    def _backward(
        self, batches: Mapping[str, ClipBatch], progress: Progress, *, share: float, sync: bool
    ) -> StepOutput:
        is_ddp = isinstance(self._module, DistributedDataParallel)
        with self._module.no_sync() if is_ddp and not sync else nullcontext():  # type: ignore[operator]
            with self.autocast():
                output: StepOutput = self._module(batches, progress)
            (output.loss * share).backward()
        return output

    def autocast(self) -> torch.autocast:
        """The precision of forward passes."""
        enabled = self._autocast != torch.float32
        return torch.autocast(self._world.device.type, self._autocast, enabled=enabled)

    def _update_average(self) -> None:
        decay = self.stage.optim.ema_decay
        if decay is None:
            return
        averages = list(self._average.values())
        torch._foreach_lerp_(averages, [p.detach() for p in self.trainable.values()], 1 - decay)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights into the method; without an average, changes nothing."""
        own = {name: self.trainable[name].detach().clone() for name in self._average}
        self._assign(self._average)
        try:
            yield
        finally:
            self._assign(own)

    def keep_averaged_weights(self) -> None:
        """Leaves the averaged weights in the method, where there are any."""
        self._assign(self._average)

    def _assign(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                self.trainable[name].copy_(weight)

    def frozen_tensors(self) -> Tensors:
        """The parameters that this stage does not train."""
        return {
            name: p.detach()
            for name, p in self.method.named_parameters()
            if name not in self.trainable
        }

    def model_tensors(self) -> Tensors:
        """Trained parameters and all persistent buffers."""
        frozen = self.frozen_tensors()
        return {name: t for name, t in self.method.state_dict().items() if name not in frozen}

    def optimizer_tensors(self) -> Tensors:
        """The optimiser's moments and the averaged weights, by parameter name."""
        tensors = {f"average//{name}": t for name, t in self._average.items()}
        for name, parameter in self.trainable.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{key}//{name}"] = value
        return tensors

    def load_optimizer_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`optimizer_tensors`."""
        for full_name, tensor in tensors.items():
            key, name = full_name.split("//", 1)
            parameter = self.trainable[name]
            if key == "average":
                self._average[name].copy_(tensor)
                continue
            device = "cpu" if key == "step" else parameter.device
            self._optimizer.state[parameter][key] = tensor.to(device)


def select_trainable(method: Method, stage: Stage) -> dict[str, nn.Parameter]:
    """Sets ``requires_grad`` by the stage's patterns and returns what trains, by name.

    Raises:
        ValueError: a pattern matches no parameter.
    """
    parameters = dict(method.named_parameters())
    for pattern in (*stage.trainable, *stage.no_decay):
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ValueError(
                f"stage {stage.name!r}: pattern {pattern!r} matches no parameter of "
                f"{type(method).__name__}; its parameters start with "
                f"{sorted({name.split('.')[0] for name in parameters})}"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad_(matches(name, stage.trainable))
        parameter.grad = None  # of the stage before
    return {name: p for name, p in parameters.items() if p.requires_grad}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a parameter name matches any shell pattern."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _build_optimizer(trainable: Mapping[str, nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
    plan = stage.optim
    decayed = [p for name, p in trainable.items() if not matches(name, stage.no_decay)]
    spared = [p for name, p in trainable.items() if matches(name, stage.no_decay)]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": plan.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.lr, momentum=plan.betas[0])
    return torch.optim.AdamW(groups, lr=plan.lr, betas=plan.betas)


def learning_rate(plan: OptimPlan, step: int, total_steps: int, epochs: int) -> float:
    """The learning rate of a step: linear warm-up, then the plan's schedule down to ``min_lr``."""
    warmup_steps = round(plan.warmup_fraction * total_steps)
    if step < warmup_steps:
        return plan.lr * (step + 1) / warmup_steps
    if plan.schedule == "constant":
        return plan.lr
    if plan.schedule == "epoch_cosine":
        fraction = (step * epochs // total_steps) / epochs
    else:
        fraction = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return plan.min_lr + (plan.lr - plan.min_lr) * (1 + math.cos(math.pi * fraction)) / 2


def _micro_batches(
    batches: Mapping[str, ClipBatch], count: int
) -> Iterator[Mapping[str, ClipBatch]]:
    if count == 1:
        yield batches
        return
    for name, batch in batches.items():
        if len(batch) % count:
            raise ValueError(
                f"optim.accumulate={count} must divide the {len(batch)} clips that each worker "
                f"gets of stream {name!r}"
            )
    for index in range(count):
        yield {
            name: batch.rows(index * len(batch) // count, (index + 1) * len(batch) // count)
            for name, batch in batches.items()
        }


def _mean_logs(outputs: list[StepOutput]) -> dict[str, Tensor]:
    logs = [{"loss": output.loss.detach(), **output.logs} for output in outputs]
    return {name: torch.stack([log[name].float() for log in logs]).mean() for name in logs[0]}
