"""Opening every clip of a manifest, in parallel, and saying what is wrong."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice

from mien.clips.inspect.duplicates import MediaIndex, find_duplicates
from mien.clips.inspect.examine import ClipToExamine, Examined, examine_clip
from mien.clips.inspect.findings import Finding
from mien.clips.manifest import Manifest

CLIPS_AT_ONCE = 16
"""Clips that a process gets at a time."""

Progress = Callable[[int, int], None]
"""Called with the number of clips that were opened, and of all clips."""


class CheckError(ValueError):
    """A check that could not be finished."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with a manifest's clips."""

    num_clips: int
    findings: tuple[Finding, ...]
    """In the manifest's order; a clip may have several."""

    @property
    def num_faulty(self) -> int:
        """Clips with a finding."""
        return len({finding.clip_id for finding in self.findings})


def check_clips(
    manifest: Manifest,
    *,
    decode_all: bool = False,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> CheckReport:
    """Opens every clip, looks at it, and looks for clips that show the same.

    Memory: about 5 kB a clip and what `num_workers` decoders need. Files are read twice, once for
    their hash.

    Args:
        manifest: clips that may be opened (see `mien.clips.person_data.usable_clips`).
        decode_all: decode every frame, not a few of each clip.
        num_workers: processes; 0 looks in this one.
        progress: called as clips are done.

    Raises:
        CheckError: a process was killed.
        ValueError: `num_workers` is negative.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers={num_workers}; expected 0 or more processes")
    found: dict[int, tuple[Finding, ...]] = {}
    media = MediaIndex()
    done = 0
    look = partial(_examine, decode_all=decode_all)
    for start, outcomes in _examined(manifest, look, num_workers):
        for row, outcome in enumerate(outcomes, start):
            if outcome.findings:
                found[row] = outcome.findings
            media.add(row, outcome.digest, outcome.looks)
        done += len(outcomes)
        if progress is not None:
            progress(done, len(manifest))
    opened = [finding for row in sorted(found) for finding in found[row]]
    duplicates = find_duplicates(manifest, media)
    return CheckReport(num_clips=len(manifest), findings=(*duplicates, *opened))


Look = Callable[[Sequence[ClipToExamine]], list[Examined]]


def _examine(clips: Sequence[ClipToExamine], *, decode_all: bool) -> list[Examined]:
    return [examine_clip(clip, decode_all=decode_all) for clip in clips]


def _examined(
    manifest: Manifest, look: Look, num_workers: int
) -> Iterator[tuple[int, list[Examined]]]:
    """The first row and the outcomes of each piece of the manifest, in the order of being done."""
    starts = iter(range(0, len(manifest), CLIPS_AT_ONCE))
    if num_workers == 0:
        for start in starts:
            yield start, look(_clips(manifest, start))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        waiting: dict[Future[list[Examined]], int] = {}
        try:
            while True:
                # Few pieces wait at a time: rows become Python objects only when it is their turn.
                for start in islice(starts, 2 * num_workers - len(waiting)):
                    waiting[pool.submit(look, _clips(manifest, start))] = start
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            ids = [c.ref.clip_id for s in sorted(waiting.values()) for c in _clips(manifest, s)]
            raise CheckError(
                "a process that read clips was killed: out of memory, or by a file that crashes "
                f"the decoder, somewhere among {ids[0]!r} ... {ids[-1]!r}. --workers 1 needs least "
                "memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _clips(manifest: Manifest, start: int) -> list[ClipToExamine]:
    rows = range(start, min(start + CLIPS_AT_ONCE, len(manifest)))
    table = manifest.table
    claims = table["has_audio"] if "has_audio" in table.column_names else None
    return [
        ClipToExamine(manifest.ref(row), None if claims is None else claims[row].as_py())
        for row in rows
    ]
