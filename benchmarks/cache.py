"""Reading a cached clip against decoding it, in one run: 16 random frames of the face at 224 px
and the log-mel spectrogram, on one thread.

The ways take turns clip by clip and are compared by CPU time, which the load of the machine changes
little. ``row`` is all of it, ``crops`` is without log-mel, which a cache cannot save. Run with
``--quick`` for a short version; films are made once and kept in the folder for temporary files
(`decode_clips.py`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from decode_clips import FILM_SETS, FilmSet, make_films, packaged_footage
from report import finish

from mien.cache.build import build
from mien.cache.images import ImageFormat
from mien.cache.settings import CacheSettings, StoredAs
from mien.cache.store import ClipCache
from mien.cache.view import CachedClips
from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.stream.load import ClipRequest, choose_views, load_clip
from mien.stream.plan import LoadPlan
from mien_models.contract import AudioSpec, StreamSpec, ViewSpec

SPEC = StreamSpec(
    views=(ViewSpec(num_frames=16, sampling="random_segments"),), audio=AudioSpec(num_frames=512)
)
LABELS = LabelSet(name="two", classes=("a", "b"))
FORMATS: tuple[ImageFormat, ...] = ("jpeg", "png")


def fill(folder: Path, refs: Sequence[ClipRef], image_format: ImageFormat) -> LoadPlan:
    """A plan that reads the clips from a new cache."""
    stored_as = StoredAs(image_format=image_format)
    settings = CacheSettings(crops=LoadPlan().crops(SPEC), stored_as=stored_as)
    cache = ClipCache.open(str(folder), create=True)
    report = build(cache, refs, settings)
    assert report.cached == len(refs), report.summary()
    clips = CachedClips.of(cache, stored_as, {settings: report.coverage})
    return LoadPlan(cache=clips)


def cpu_ms_of_row(ref: ClipRef, plan: LoadPlan, seed: int) -> float:
    """Everything from the reference to the row of a batch."""
    request = ClipRequest(ref=ref, spec=SPEC, label_set=LABELS, subject=0, seed=seed, plan=plan)
    start = time.process_time()
    load_clip(request)
    return 1000 * (time.process_time() - start)


def cpu_ms_of_crops(ref: ClipRef, plan: LoadPlan, seed: int) -> float:
    """The part that a cache is there for."""
    start = time.process_time()
    plan.prepare(ref, SPEC, lambda count: choose_views(SPEC.views, count, seed)[0].tolist())
    return 1000 * (time.process_time() - start)


def measure(
    film_set: FilmSet, refs: Sequence[ClipRef], folder: Path, rounds: int
) -> dict[str, float]:
    """CPU milliseconds a clip of every way, and kilobytes on disk."""
    plans: dict[str, LoadPlan] = {"decoded": LoadPlan()}
    figures: dict[str, float] = {}
    for image_format in FORMATS:
        start = time.process_time()
        plans[image_format] = fill(folder / image_format, refs, image_format)
        figures[f"{image_format}_build_ms"] = 1000 * (time.process_time() - start) / len(refs)
        size = sum(file.stat().st_size for file in (folder / image_format).rglob("*.parquet"))
        figures[f"{image_format}_kb"] = size / 1000 / len(refs)
    source = sum(Path(ref.uri).stat().st_size for ref in refs)
    figures["source_kb"] = source / 1000 / len(refs)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for seed in range(rounds):
        for ref in refs:
            for name, plan in plans.items():
                times[f"{name}_row_ms"].append(cpu_ms_of_row(ref, plan, seed))
                times[f"{name}_crops_ms"].append(cpu_ms_of_crops(ref, plan, seed))
    figures |= {name: statistics.fmean(several) for name, several in times.items()}
    for image_format in FORMATS:
        for part in ("row", "crops"):
            decoded, cached = (figures[f"{n}_{part}_ms"] for n in ("decoded", image_format))
            figures[f"{image_format}_{part}_ratio"] = decoded / cached
    print(f"{film_set.name}: {shown(figures)}")
    return figures


def shown(figures: Mapping[str, float]) -> str:
    """Figures on one line."""
    return ", ".join(f"{name} {value:.1f}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--footage", nargs="+", metavar="FILE", help="other films to cut clips of")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips, rounds = (3, 1) if args.quick else (16, 2)
    films = make_films(clips, args.footage or packaged_footage())
    figures: dict[str, float] = {}
    for film_set in FILM_SETS:
        paths = sorted((films / film_set.name).iterdir())
        refs = [ClipRef(clip_id=path.stem, uri=str(path)) for path in paths]
        with tempfile.TemporaryDirectory() as folder:
            found = measure(film_set, refs, Path(folder), rounds)
        figures |= {f"{film_set.name}_{name}": value for name, value in found.items()}
    figures["slowest_jpeg_row_ratio"] = min(figures[f"{s.name}_jpeg_row_ratio"] for s in FILM_SETS)
    figures["clips_of_each_set"] = clips
    rounded = {name: round(value, 2) for name, value in figures.items()}
    # A cached clip may cost a fifth of decoding it, log-mel included.
    finish("cache", rounded, {"cache": ("slowest_jpeg_row_ratio", ">=", 5.0)}, quick=args.quick)


if __name__ == "__main__":
    main()
