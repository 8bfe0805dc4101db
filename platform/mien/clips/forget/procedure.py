"""The whole of a forgetting: what there is, what is removed, and the proof by reading it again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mien.cache.store import ClipCache
from mien.clips.forget.artifacts import ArtifactMemory, search_artifacts
from mien.clips.forget.manifests import remove_person, rows_left
from mien.clips.forget.media import MediaOfPerson, delete_media, media_of
from mien.clips.forget.memory_files import (
    MemoryFile,
    forget_in_memory,
    is_reference,
    memory_left,
)
from mien.clips.forget.models import TrackedRun, search_tracking
from mien.clips.forget.person import Person, find_person
from mien.clips.forget.receipt import Receipt, now
from mien.clips.forget.runs import RunOfPerson, search_runs
from mien.media import storage
from mien.track.tracker import embedded_folder

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRequest:
    """Whom to forget, and where."""

    name: str
    manifests: tuple[str, ...]
    caches: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """Folders below which runs lie."""
    tracking: tuple[str, ...] = ()
    """MLflow URIs."""
    delete_media: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPlan:
    """What was found of a person; nothing is changed yet."""

    request: ForgetRequest
    person: Person
    media: MediaOfPerson
    cached: dict[str, int]
    """Clips of the person in each cache."""
    runs: tuple[RunOfPerson, ...]
    tracked: tuple[TrackedRun, ...]
    artifacts: tuple[ArtifactMemory, ...]
    """Among the artifacts of tracked runs."""

    @property
    def memories(self) -> list[MemoryFile]:
        """Checkpoints, packages and references of our runs that hold something about the clips."""
        mentions = [mention for run in self.runs for mention in run.mentions]
        ours = [mention for mention in mentions if mention.in_memory and mention.is_ours]
        return [*ours, *self.artifacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetOutcome:
    """What was removed, and what remains."""

    removed: dict[str, int]
    verified: tuple[str, ...]
    remaining: tuple[str, ...]
    """What reading again still found of what should be gone; empty if all went well."""
    left_to_do: tuple[str, ...]
    """What a person has to decide on: models to train anew, records to delete."""


def plan_forgetting(
    request: ForgetRequest, progress: Callable[[int, int], None] | None = None
) -> ForgetPlan:
    """Looks everywhere for a person's clips; changes nothing.

    Args:
        request: whom, and where to look.
        progress: called with the number of tracked runs that were looked at, and of all.

    Raises:
        UnknownPersonError: nobody of that name is in the manifests.
        ValueError: a manifest, cache, folder or server can't be read.
    """
    person = find_person(request.name, request.manifests)
    by_uri = {uri: search_tracking(uri, person, progress) for uri in request.tracking}
    return ForgetPlan(
        request=request,
        person=person,
        media=media_of(person),
        cached={uri: len(ClipCache.open(uri).holds(person.clip_ids)) for uri in request.caches},
        runs=tuple(run for folder in request.runs for run in search_runs(folder, person)),
        tracked=tuple(run for runs in by_uri.values() for run in runs),
        artifacts=tuple(
            memory
            for uri, runs in by_uri.items()
            if not _is_below(embedded_folder(uri), request.runs)
            for memory in search_artifacts(uri, runs, person)
        ),
    )


def _is_below(folder: Path | None, others: Sequence[str]) -> bool:
    """Whether a data base's artifacts are among the files of a folder that is searched anyway."""
    return folder is not None and any(
        folder.resolve().is_relative_to(Path(other).resolve()) for other in others
    )


def forget(plan: ForgetPlan, receipt_location: str, say: Say) -> ForgetOutcome:
    """Removes what a plan found, reads everything again and writes the receipt.

    Manifests come last, because they say which clips are the person's: after an interruption the
    same call goes on.

    Args:
        plan: what to remove.
        receipt_location: where the receipt goes.
        say: gets a line for each thing that was done.

    Raises:
        ValueError: something can't be removed; what came before is, and the call can be repeated.
    """
    request, person = plan.request, plan.person
    receipt = Receipt.begin(request.name, person.clip_ids)
    receipt.left_to_do = left_to_do(plan)
    receipt.write(receipt_location, request.name)
    removed = {
        "cache_entries": _out_of_caches(plan, say),
        "memory_entries": _out_of_memories(plan, say),
        "media_files": _media(plan, say),
        "manifest_rows": _out_of_manifests(plan, receipt, say),
    }
    verified, remaining = verify(request, person, plan.media, plan.memories)
    receipt.removed, receipt.verified = removed, verified
    receipt.finished = "" if remaining else now()
    receipt.write(receipt_location, request.name)
    return ForgetOutcome(
        removed=removed,
        verified=tuple(verified),
        remaining=tuple(remaining),
        left_to_do=tuple(receipt.left_to_do),
    )


def left_to_do(plan: ForgetPlan) -> list[str]:
    """What Mien can't undo, a line each."""
    lines = [_model_line(run) for run in plan.tracked]
    for run in plan.runs:
        lines += _run_lines(run, plan.tracked)
    for memory in plan.memories:
        unsafe = memory_left(memory, plan.person).unsafe
        if unsafe and is_reference(memory):
            lines.append(
                f"delete: {memory.location} may hold features of their clips: it was written when "
                "references could not be searched; `mien evaluate` writes a new one"
            )
        elif unsafe:
            lines.append(
                f"delete: {memory.location} names {len(unsafe)} clips where other values may be in "
                f"step with them, first at {unsafe[0]}"
            )
    for place in plan.media.shared:
        lines.append(f"cut by hand: {place} shows or holds other people's clips too")
    if not plan.request.delete_media:
        lines += [f"delete: source file {place}" for place in plan.media.theirs]
    return lines


def verify(
    request: ForgetRequest, person: Person, media: MediaOfPerson, memories: Sequence[MemoryFile]
) -> tuple[list[str], list[str]]:
    """Reads everything again.

    Returns:
        A line for each place in which nothing is left, and one for each in which something is.
    """
    counts = [(m.uri, "rows in manifest", rows_left(m.uri, person.name)) for m in person.manifests]
    counts += [
        (uri, "clips in cache", len(ClipCache.open(uri).holds(person.clip_ids)))
        for uri in request.caches
    ]
    counts += [
        (memory.location, "entries in memory", memory_left(memory, person).removed)
        for memory in memories
    ]
    if request.delete_media:
        counts += [(place, "files at", int(storage.exists(place))) for place in media.theirs]
    lines = [(f"{count} {what} {place}", count) for place, what, count in counts]
    return [line for line, count in lines if not count], [line for line, count in lines if count]


def _out_of_caches(plan: ForgetPlan, say: Say) -> int:
    total = 0
    for uri in plan.request.caches:
        count = ClipCache.open(uri).forget(plan.person.clip_ids)
        say(f"cache {uri}: {count} entries removed")
        total += count
    return total


def _out_of_memories(plan: ForgetPlan, say: Say) -> int:
    total = 0
    for memory in plan.memories:
        removal = forget_in_memory(memory, plan.person)
        if removal.removed:
            say(f"memory {memory.location}: {removal.removed} entries removed")
        total += removal.removed
    return total


def _media(plan: ForgetPlan, say: Say) -> int:
    if not plan.request.delete_media:
        return 0
    count = delete_media(plan.media.theirs)
    say(f"media: {count} files deleted")
    return count


def _out_of_manifests(plan: ForgetPlan, receipt: Receipt, say: Say) -> int:
    total = 0
    for manifest in plan.person.manifests:
        before = _sha256(manifest.uri)
        count = remove_person(manifest.uri, plan.person.name)
        say(f"manifest {manifest.uri}: {count} of {manifest.num_rows} rows removed")
        total += count
        receipt.manifests.append(
            {
                "uri": manifest.uri,
                "rows_before": manifest.num_rows,
                "rows_removed": count,
                "sha256_before": before,
                "sha256_after": _sha256(manifest.uri),
            }
        )
    return total


def _sha256(uri: str) -> str:
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest()


def _model_line(run: TrackedRun) -> str:
    verb = "train anew" if run.is_trained_on else "score anew"
    models = f", model {', '.join(map(str, run.versions))}" if run.versions else ""
    used = ", ".join(f"{count} clips in {part}" for part, count in run.parts.items())
    if run.started_from:
        used = f"began with the weights of {run.started_from}" + f", {used}" * bool(used)
    used = used or "trained on this manifest, its split is not recorded"
    return (
        f"{verb}: MLflow run {run.name} ({run.run_id}, experiment {run.experiment}){models}: {used}"
    )


def _run_lines(run: RunOfPerson, tracked: Sequence[TrackedRun]) -> list[str]:
    if not run.is_ours:
        return [
            f"look at: run {run.folder} was on another manifest ({run.manifest}) and names "
            f"{sum(m.count for m in run.mentions)} clips of the same ids; nothing was changed there"
        ]
    lines = []
    if run.parts:
        learnt = run.parts.get("train") or run.parts.get("val")
        used = ", ".join(f"{count} clips in {part}" for part, count in run.parts.items())
        place = run.folder or next(m.location for m in run.mentions if m.parts)
        # Among a tracked run's artifacts lies a copy of its split; that run has its own line.
        if run.folder or not any(other.run_id in place for other in tracked):
            lines.append(f"{'train anew' if learnt else 'score anew'}: run {place}: {used}")
    for mention in run.mentions:
        if mention.count > mention.in_memory:
            count = mention.count - mention.in_memory
            lines.append(f"delete: {mention.location} names their clips {count} times")
    return lines
