"""Writes a planned set to disk: mp4 clips by several processes, then the manifest."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from typing import Any

from mien.clips.manifest import Manifest
from mien.synth.plan import ClipPlan, plan_clips
from mien.synth.render import render_clip
from mien.synth.spec import SynthSpec
from mien.synth.video import write_mp4
from mien.synth.voice import record

MANIFEST_NAME = "manifest.parquet"
Row = dict[str, Any]


def write_dataset(
    spec: SynthSpec,
    root: str | Path,
    *,
    num_workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a data set: `clips/<subject>/<clip id>.mp4` and the manifest, last.

    Args:
        spec: What the set holds.
        root: A folder; made where missing. Clips of the same names are replaced.
        num_workers: Processes that render; 0 renders in this one. The files are the same with any
            number.
        progress: Called with the number of clips written and of all clips.

    Returns:
        The path of the manifest.

    Raises:
        ValueError: `num_workers` is negative.
        SynthDataMissingError: `anny` or `espeakng-loader` is not installed.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, not {num_workers}")
    folder = Path(root)
    plans = plan_clips(spec)
    manifest = folder / MANIFEST_NAME
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)  # an old manifest must not describe half-replaced clips
    rows: dict[str, Row] = {}
    batches = [list(group) for _, group in groupby(plans, key=lambda plan: plan.person.subject_id)]
    for batch in _written(folder, batches, num_workers):
        rows.update((row["clip_id"], row) for row in batch)
        if progress is not None:
            progress(len(rows), len(plans))
    Manifest.from_rows([rows[plan.clip_id] for plan in plans]).write(str(manifest))
    return manifest


def _written(folder: Path, batches: list[list[ClipPlan]], num_workers: int) -> Iterator[list[Row]]:
    """Rows of each subject's clips, in the order in which they are done."""
    if num_workers == 0:
        for batch in batches:
            yield write_clips(folder, batch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        waiting = {pool.submit(write_clips, folder, batch) for batch in batches}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_clips(folder: Path, plans: list[ClipPlan]) -> list[Row]:
    """Renders and writes clips; returns their manifest rows."""
    return [_write_clip(folder, plan) for plan in plans]


def _write_clip(folder: Path, plan: ClipPlan) -> Row:
    uri = f"clips/{plan.person.subject_id}/{plan.clip_id}.mp4"
    path = folder / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = render_clip(plan)
    write_mp4(path, clip.frames, plan.fps, record(plan, clip.wave))
    curves = {name: curve.round(4).tolist() for name, curve in clip.action_units.items()}
    return {"uri": uri, "action_units": curves, **_described(plan)}


def _described(plan: ClipPlan) -> Row:
    """All manifest columns that follow from the plan alone."""
    person, speech = plan.person, plan.speech
    ancestry = ("african", "asian", "caucasian")[person.ancestry.index(max(person.ancestry))]
    scene_columns = ("yaw_deg", "pitch_deg", "roll_deg", "sway_deg", "head_share",
                     "light_azimuth_deg", "light_elevation_deg", "light_intensity",
                     "light_warmth", "exposure", "noise_sigma", "background")  # fmt: skip
    return {
        "clip_id": plan.clip_id,
        "num_frames": plan.num_frames,
        "subject_id": person.subject_id,
        "source": "mien-synth",
        "label": plan.label,
        "soft_label": dict(plan.soft_label) if plan.soft_label else None,
        "consent": True,
        "true_label": plan.true_label,
        "other_expressions": ",".join(e.emotion for e in plan.expressions[1:]),
        "num_expressions": len(plan.expressions),
        "is_label_noise": plan.is_label_noise,
        "is_ambiguous": plan.is_ambiguous,
        "has_audio": plan.audio != "missing",
        "audio_kind": plan.audio,
        "voice": person.voice,
        "sex": person.sex,
        "age": person.age,
        "ancestry": ancestry,
        "hair_style": person.hair_style,
        "hair_colour": person.hair_colour,
        "eye_colour": person.eye_colour,
        "skin": "#" + "".join(f"{round(255 * value):02x}" for value in person.skin_rgb),
        "beard": person.beard,
        "makeup": person.makeup,
        "fps": float(plan.fps),
        "key_time_s": plan.key_time_s,
        "intensity": plan.intensity,
        "text": speech.text,
        "pitch": speech.pitch,
        "pitch_range": speech.pitch_range,
        "rate_wpm": speech.rate_wpm,
        "loudness_db": speech.loudness_db,
        "tremor": speech.tremor,
        "audio_background_db": speech.background_db,
        **{name: getattr(plan.scene, name) for name in scene_columns},
    }
