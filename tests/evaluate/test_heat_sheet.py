"""Heat over frames, and the regions of an aligned crop."""

from __future__ import annotations

import numpy as np

from mien.evaluate.heat_sheet import HeatRow, heat_sheet, overlay
from mien.media.faces.align import landmark_places
from mien.media.faces.regions import REGIONS, face_regions


def test_regions_hold_their_landmarks_and_share_no_place() -> None:
    masks = face_regions(112)
    assert list(masks) == list(REGIONS)
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1
    eyes_and_rest = landmark_places(112)
    owners = ["brows and eyes"] * 2 + ["nose"] + ["mouth and chin"] * 2
    for (x, y), owner in zip(eyes_and_rest, owners, strict=True):
        assert masks[owner][int(y), int(x)]


def test_heat_colours_a_grey_frame_only_where_it_is() -> None:
    frame = np.full((4, 4, 3), (200, 100, 0), dtype=np.uint8)
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1.0
    shown = overlay(frame, heat)
    assert (shown[1:] == 100).all()
    red, _, blue = shown[0, 0].astype(int)
    # inferno ends in a light yellow: (0.988, 0.998, 0.645), of which two thirds are seen.
    assert (red, blue) == (round(255 * (0.35 * 100 / 255 + 0.65 * 0.988362)), blue)
    assert red > blue > 100


def test_a_sheet_shows_frames_evenly_when_there_are_many() -> None:
    frames = np.zeros((20, 8, 8, 3), dtype=np.uint8)
    row = HeatRow(
        frames_SHWC=frames,
        heat_SHW=np.zeros((20, 8, 8), dtype=np.float32),
        times_S=np.arange(20, dtype=np.float32),
        title="a",
        note="b",
    )
    figure = heat_sheet([row] * 20, "many")
    lines = figure.subfigs
    assert len(lines) == 16
    titles = [axes.get_title() for axes in lines[0].axes]
    assert (titles[0], titles[-1], len(titles)) == ("0.00 s", "19.00 s", 8)
