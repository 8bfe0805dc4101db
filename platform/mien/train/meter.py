"""What a step line says: losses, learning rate, clips a second, waiting for data, time left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mien.train.stage_run import StageRun, learning_rate
from mien.train.world import World

_STEPS = "steps"


class StepMeter:
    """Means since the last line.

    The sums live in the dictionary that is passed in, which is in every checkpoint, so that a run
    that was interrupted logs the same means.
    """

    def __init__(self, run: StageRun, sums: dict[str, float], steps_per_epoch: int) -> None:
        self._run = run
        self._sums = sums
        self._steps_per_epoch = steps_per_epoch
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._since = time.perf_counter()
        self._waited_s = 0.0
        self._clips = 0
        self._timed_steps = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the clips a second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - start

    def add(self, values: Mapping[str, float], *, clips: int) -> None:
        """Adds one step's scalars and the clips that all workers saw in it."""
        self._clips += clips
        self._timed_steps += 1
        for name, value in {**values, _STEPS: 1.0}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def flush(self, world: World, step: int) -> dict[str, float]:
        """Means over steps and workers since the last flush, as curves; starts anew."""
        steps = self._sums.pop(_STEPS)
        means = world.mean({name: total / steps for name, total in self._sums.items()})
        self._sums.clear()
        seconds = time.perf_counter() - self._since
        plan = self._run.stage.optim
        lr = learning_rate(plan, step - 1, self._run.total_steps, self._run.stage.epochs)
        curves = {f"train/{self._run.stage.name}/{name}": value for name, value in means.items()}
        curves |= {
            "train/lr": lr,
            "train/clips_per_s": self._clips / seconds,
            "train/waiting_for_data": self._waited_s / seconds,
            "train/s_per_step": seconds / self._timed_steps,
        }
        self._restart_clock()
        return curves

    def line(self, curves: Mapping[str, float], step: int) -> str:
        """The step line of flushed curves."""
        run = self._run
        left_s = round((run.total_steps - step) * curves["train/s_per_step"])
        return (
            f"{run.stage.name} step {step}/{run.total_steps} "
            f"epoch {-(-step // self._steps_per_epoch)}/{run.stage.epochs}  "
            f"loss {curves[f'train/{run.stage.name}/loss']:.4f}  lr {curves['train/lr']:.1e}  "
            f"{curves['train/clips_per_s']:.1f} clips/s  "
            f"waiting for data {100 * curves['train/waiting_for_data']:.0f} %  "
            f"eta {left_s // 60}:{left_s % 60:02d}"
        )
