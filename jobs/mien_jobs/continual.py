"""What a training stage by stage came to: into the run's folder, the tracker and the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mien.evaluate.continual import ContinualScores, score_stages
from mien.evaluate.continual_plots import plot_accuracy_matrix
from mien.media.storage import join, write_bytes_atomically
from mien.track.tracker import Tracker
from mien_models.contract import StageReport


def track_stages(
    tracker: Tracker,
    reports: Sequence[StageReport],
    *,
    folder: str,
    step: int,
    say: Callable[[str], None],
) -> None:
    """Scores of each split that has clips; nothing for methods without reports of stages."""
    for scores in _scores_of_splits(reports):
        found = scores.to_json()
        location = join(folder, f"stages-{scores.split}.json")
        write_bytes_atomically(location, json.dumps(found, indent=2).encode())
        tracker.log_json(f"stages_{scores.split}.json", found)
        tracker.log_figure(f"stages_{scores.split}.png", plot_accuracy_matrix(scores))
        prefix = f"{scores.split}/stages"
        tracker.log_metrics(
            {f"{prefix}/{name}": value for name, value in scores.figures().items()}, step
        )
        say(scores.to_markdown())


def _scores_of_splits(reports: Sequence[StageReport]) -> list[ContinualScores]:
    if not reports:
        return []
    last = reports[-1].confusions
    return [score_stages(reports, split) for split, rows in last.items() if any(map(sum, rows))]
