"""Predicts a film with a small method and prints this process's peak of memory, in MB.

Run as a program of its own: ``python peak_of_prediction.py FILM TABLE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from colour_method import COLOURS, ColourMethod

from mien.infer.film_reading import FilmSettings
from mien.infer.film_report import Wishes, report_film
from mien.infer.network import BatchedNetwork
from mien.infer.windows import Windowing
from mien.stream.plan import DEFAULT


def main(film: str, table: str) -> None:
    """Predicts and prints."""
    torch.set_num_threads(1)
    method = ColourMethod(align_faces=True)
    wishes = Wishes(
        label_set=COLOURS,
        settings=FilmSettings(
            windowing=Windowing(window_s=10.0, step_s=5.0), post_filter_frames=31
        ),
        plan=DEFAULT,
        out=table,
        rows="frames",
    )
    with BatchedNetwork(method, method.prediction_stream()) as network:
        report_film(film, network, wishes)
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
