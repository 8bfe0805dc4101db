"""New predictions against those that a registered model was accepted with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mien.evaluate.report import Report
from mien.media.storage import exists, join, write_bytes_atomically
from mien.monitor.reading import read_sample
from mien.monitor.report import figures, monitor_report, to_json, verdict
from mien.monitor.sample import REFERENCE_FILE, Sample, SampleError
from mien.monitor.signals import Comparison, compare
from mien.track.tracker import TrackerSpec
from mien_jobs.run_note import RUN_NOTE


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """Two samples and what came of comparing them."""

    reference: Sample
    new: Sample
    found: Comparison
    title: str

    @property
    def report(self) -> Report:
        """For people."""
        return monitor_report(self.found, self.reference, self.new, title=self.title)


def reference_of(package: Path) -> Sample:
    """The predictions that a package was accepted with.

    Raises:
        SampleError: it has none.
    """
    location = join(str(package), REFERENCE_FILE)
    if not exists(location):
        raise SampleError(
            f"{package} keeps no {REFERENCE_FILE}: its version of Mien wrote none yet, or it was "
            "trained without labels. `mien promote` writes it; or make it with `mien evaluate "
            f"MODEL --out FOLDER` and give --reference FOLDER/{REFERENCE_FILE}"
        )
    return read_sample([location])


def monitor(reference: Sample, new: Sample, *, level: float, title: str) -> Monitoring:
    """Compares new predictions with the reference.

    Raises:
        SampleError: predictions of another model, or too few to compare anything.
    """
    found = compare(reference, new, level=level)
    if all(signal.figure is None for signal in found.signals):
        raise SampleError(f"nothing can be compared: {found.signals[0].why_not}")
    return Monitoring(reference=reference, new=new, found=found, title=title)


def save_monitoring(result: Monitoring, out: str) -> str:
    """Writes ``monitor.json`` and ``monitor.html``; returns the page's location."""
    facts = json.dumps(to_json(result.found, result.reference, result.new), indent=2)
    write_bytes_atomically(join(out, "monitor.json"), facts.encode())
    page = join(out, "monitor.html")
    drawn = list(figures(result.reference, result.new).values())
    write_bytes_atomically(page, result.report.to_html(drawn).encode())
    return page


def track_monitoring(result: Monitoring, uri: str, model: str) -> str:
    """Puts figures, verdict and pictures into a run of the experiment ``monitoring``."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    spec = TrackerSpec(
        uri=uri, experiment="monitoring", run_name=f"{model} {now[:16]}", run_key=f"{model} {now}"
    )
    tracker = spec.open()
    facts = to_json(result.found, result.reference, result.new)
    tracker.log_params({"model": model, "level": result.found.level, "new": facts["new"]})
    tracker.set_tags(
        {
            "mien.monitor": "look" if result.found.loud else "quiet",
            "mien.monitor_why": verdict(result.found),
            RUN_NOTE: result.report.to_markdown(),
        }
    )
    measured = [signal for signal in result.found.signals if signal.figure is not None]
    tracker.log_metrics({f"monitor/{one.name}": float(one.figure or 0) for one in measured}, 0)
    tracker.log_metrics({f"monitor/{one.name}_p": float(one.p_value or 0) for one in measured}, 0)
    tracker.log_json("monitor.json", facts)
    for name, figure in figures(result.reference, result.new).items():
        tracker.log_figure(f"monitor_{name}.png", figure)
    tracker.finish()
    return tracker.run_id
