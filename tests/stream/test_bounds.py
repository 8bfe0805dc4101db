"""Memory and start-up of streams on Ray: bounded for a slow reader, independent of their length."""

from __future__ import annotations

import itertools
import pickle
import sys
import time
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_memory import Noise, memory_trace

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.stream.loaders import TrainingLoader
from mien.stream.order import StreamError
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource
from mien_models.contract import StreamSpec, ViewSpec

LABELS = LabelSet(name="three", classes=("happiness", "sadness", "anger"))


@pytest.mark.ray
def test_a_slow_reader_does_not_fill_the_object_store(local_ray):
    bound = 48 << 20
    executor = RayExecutor(tasks=2, object_store_bytes_per_task=bound // 2)
    steps = 150  # 240 MB in all
    seen = []
    with memory_trace(every_s=0.05) as trace:
        for rows in executor(Noise(), range(steps)):
            seen += [row["clip_id"] for row in rows]
            time.sleep(0.03)
    assert seen == [str(number) for number in range(8 * steps)]
    assert 4 * executor.rows_per_block(Noise()) * Noise.bytes_per_row < max(trace.object_store)
    peak = max(trace.object_store)
    assert peak <= bound
    assert trace.spilled == 0


def test_tasks_are_small_enough_for_the_bound():
    executor = RayExecutor(tasks=2, object_store_bytes_per_task=24 << 20)
    assert executor.rows_per_block(Noise()) * executor.blocks_in_store * 200_000 <= 48 << 20
    large = Noise()
    large.bytes_per_row = 100 << 20
    assert executor.rows_per_block(large) == 1


@pytest.mark.ray
def test_the_first_batch_does_not_wait_for_the_length_of_a_stage(local_ray):
    next(RayExecutor()(Noise(), range(40)))  # processes are up
    started = time.process_time()
    next(RayExecutor()(Noise(), range(1_000_000)))
    assert time.process_time() - started < 5  # 60 s, were all of its tasks planned before


class OnlyHere(Noise):
    """What no other process can import, as where a node lacks a package."""


OnlyHere.__module__ = "a_package_that_is_not_installed"
sys.modules["a_package_that_is_not_installed"] = types.ModuleType("a_package_that_is_not_installed")
sys.modules["a_package_that_is_not_installed"].OnlyHere = OnlyHere


@pytest.mark.ray
def test_work_that_cannot_be_unpacked_is_an_error_and_not_tried_for_ever(local_ray):
    with pytest.raises(StreamError, match="all nodes need the same Mien"):
        next(RayExecutor()(OnlyHere(), range(4)))


@pytest.fixture(scope="module")
def many(synth_manifest: Path) -> Manifest:
    """100,000 rows over the few clips that there are."""
    few = Manifest.read(str(synth_manifest))
    rows = np.arange(100_000) % len(few)
    table = few.table.take(pa.array(rows))
    names = pa.array([f"clip-{number:06d}" for number in range(len(rows))])
    table = table.set_column(table.schema.get_field_index("clip_id"), "clip_id", names)
    return Manifest(table, base=few.base)


def open_many(many: Manifest, **options) -> tuple[ClipSource, StreamSpec]:
    split = Split(name="all", train=tuple(many.column("clip_id")), val=(), test=())
    views = (ViewSpec(num_frames=2),)
    spec = StreamSpec(batch_size=8, views=views, image_size_px=32, align_faces=False)
    return ClipSource(many, split, LABELS, seed=0, **options), spec


def test_a_hundred_thousand_clips_start_within_seconds(many):
    source, spec = open_many(many)
    started = time.process_time()
    batch = next(source.batches(spec, start_step=12_345, num_steps=1))
    assert len(batch) == 8
    assert time.process_time() - started < 5
    assert source.num_clips(spec) == 100_000


def test_a_loader_of_many_clips_is_sent_as_few_large_buffers(many, monkeypatch):
    source, spec = open_many(many)
    kept: list[TrainingLoader] = []

    def catch(loader, steps):
        kept.append(loader)
        yield from ()

    source._executor = catch
    list(source.batches(spec, start_step=0, num_steps=1))
    buffers: list[pickle.PickleBuffer] = []
    started = time.process_time()
    data = pickle.dumps(kept[0], protocol=5, buffer_callback=buffers.append)
    assert time.process_time() - started < 2
    assert len(data) < 10_000
    assert sum(buffer.raw().nbytes for buffer in buffers) < 200 * 100_000
    copy = pickle.loads(data, buffers=buffers)
    assert copy.row(7, 3)["clip_id"] == kept[0].row(7, 3)["clip_id"]


@given(
    tasks=st.integers(1, 40),
    rows_per_block=st.integers(1, 32),
    start=st.integers(0, 1000),
    length=st.integers(0, 20_000),
)
def test_every_row_has_one_task_and_tasks_end_together(tasks, rows_per_block, start, length):
    parts = list(RayExecutor(tasks=tasks).divide(range(start, start + length), rows_per_block))
    assert list(itertools.chain(*parts)) == list(range(start, start + length))
    most = 8 * rows_per_block
    for number, part in enumerate(parts):
        left = start + length - part.start
        assert len(part) <= max(rows_per_block, min(most, left / (2 * tasks)))
        if number >= 3 * tasks and left >= 2 * tasks * most:
            assert len(part) == most
