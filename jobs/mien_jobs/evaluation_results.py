"""Where an evaluation's results go: a folder, a run in MLflow, the model's package."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from mien.evaluate.calibration import usable_temperatures
from mien.evaluate.predictions import write_predictions
from mien.infer.package import WEIGHTS_FILE, set_temperatures
from mien.media.storage import is_remote, join, write_bytes_atomically
from mien.monitor.sample import REFERENCE_FILE, write_sample
from mien.track.model_card import write_model_card
from mien.track.tracker import Tracker
from mien_jobs.evaluation import ClassEvaluation, Evaluation


def frames_file(split: str) -> str:
    """Name of the table of every sampled frame's action units."""
    return f"action-units-{split}.parquet"


def page_file(found: Evaluation) -> str:
    """Name of the page with tables and pictures."""
    kind = "action-units" if found.classes is None else "scorecard"
    return f"{kind}-{found.split}.html"


def save_evaluation(found: Evaluation, folder: str) -> None:
    """Writes predictions, scores, page and quarantine."""
    if found.classes is not None:
        _save_classes(found.classes, found.split, folder)
    if found.units is not None:
        frames = io.BytesIO()
        pq.write_table(found.units.frames, frames)
        write_bytes_atomically(join(folder, frames_file(found.split)), frames.getvalue())
        if found.classes is None:
            figures = json.dumps(_unit_figures(found), indent=2).encode()
            write_bytes_atomically(join(folder, f"action-units-{found.split}.json"), figures)
    page = found.report.to_html(list(found.figures().values())).encode()
    write_bytes_atomically(join(folder, page_file(found)), page)
    if len(found.quarantine):
        found.quarantine.write(join(folder, f"quarantine-{found.split}.csv"))


def track_evaluation(tracker: Tracker, found: Evaluation, *, folder: str, step: int) -> None:
    """Puts figures, tables, pictures and predictions into the run."""
    save_evaluation(found, folder)
    tracker.log_metrics(found.to_metrics(), step)
    if found.scorecard is not None:
        tracker.log_table(f"per_class_{found.split}", found.scorecard.per_class_rows())
        tracker.log_json(f"scorecard_{found.split}.json", found.scorecard.to_json())
    if found.units is not None:
        units = [dataclasses.asdict(unit) for unit in found.units.scores.pooled]
        tracker.log_table(f"per_unit_{found.split}", units)
    for name, figure in found.figures().items():
        tracker.log_figure(f"{name}_{found.split}.png", figure)
    with tempfile.TemporaryDirectory() as temporary:
        save_evaluation(found, temporary)
        for path in sorted(Path(temporary).iterdir()):
            folder_of = "predictions" if path.suffix == ".parquet" else ""
            if path.suffix in (".parquet", ".html"):
                tracker.log_file(path, folder_of)


def complete_package(package: Path, found: Evaluation, location: str = "") -> None:
    """Puts beside a package's weights what was found out about them: card, and of a model that
    tells classes monitor's reference and temperatures.

    Args:
        package: a local folder.
        found: of its model.
        location: where the package lies if that folder is a copy of one in a bucket; it gets the
            same files.
    """
    write_model_card(package, found.model_card)
    if found.classes is not None:
        write_sample(str(package / REFERENCE_FILE), found.classes.monitor_sample)
        # That of sound alone is of no use: films always have a picture.
        fitted = found.classes.scorecard.calibrations
        seen = {name: fitted[name] for name in ("video+audio", "video") if name in fitted}
        set_temperatures(package, usable_temperatures(seen))
    if is_remote(location):
        for file in sorted(package.iterdir()):
            if file.name != WEIGHTS_FILE:
                write_bytes_atomically(join(location, file.name), file.read_bytes())


def _save_classes(found: ClassEvaluation, split: str, folder: str) -> None:
    write_predictions(join(folder, f"predictions-{split}.parquet"), found.predictions)
    write_sample(join(folder, REFERENCE_FILE), found.monitor_sample)
    if found.validation is not None:
        write_predictions(join(folder, "predictions-val.parquet"), found.validation)
    scorecard = json.dumps(found.scorecard.to_json(), indent=2, default=str).encode()
    write_bytes_atomically(join(folder, f"scorecard-{split}.json"), scorecard)


def _unit_figures(found: Evaluation) -> dict[str, object]:
    assert found.units is not None
    intensities = found.units.intensities
    return {
        "split": found.split,
        "pooled_f1": found.units.scores.pooled_f1,
        "action_units": dataclasses.asdict(found.units.scores),
        "intensities": None if intensities is None else dataclasses.asdict(intensities),
        "probes": None if found.probes is None else dataclasses.asdict(found.probes),
    }
