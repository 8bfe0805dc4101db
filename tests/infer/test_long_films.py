"""Memory that does not grow with a film, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from mien.media.faces import Face, FaceTracker


def repeated(source: Path, path: Path, times: int, length_s: float) -> Path:
    """The packets of a film again and again."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in film.streams}
        for number in range(times):
            film.seek(0)
            for packet in film.demux():
                if packet.size:
                    shift = round(length_s * number / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, (packet.dts or 0) + shift
                    packet.stream = streams[packet.stream_index]
                    container.mux(packet)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_peak_is_that_of_a_short_film(synth_manifest: Path, tmp_path: Path) -> None:
    clip = sorted(synth_manifest.parent.rglob("*.mp4"))[0]
    peaks_mb = {}
    for times in (20, 300):
        film = repeated(clip, tmp_path / f"{times}.mkv", times, 0.7)
        table = tmp_path / f"{times}.parquet"
        answer = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "peak_of_prediction.py"), film, table],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks_mb[times] = float(answer.stdout.splitlines()[-1])
        rows = pq.read_table(table, columns=["frame", "has_face", "track"])
        frames = rows["frame"].to_pylist()
        assert sorted(set(frames)) == list(range(max(frames) + 1))
        assert len(set(frames)) >= 15 * times
    # 4,500 frames of 64 x 64 px are 55 MB.
    assert peaks_mb[300] < 1.10 * peaks_mb[20]
    assert peaks_mb[300] < peaks_mb[20] + 30


def test_a_tracker_of_films_keeps_the_newest_faces_only() -> None:
    import numpy as np

    def face(x: float) -> Face:
        box = np.array([x, 10, x + 40, 50], dtype=np.float32)
        return Face(box=box, landmarks=np.zeros((5, 2), dtype=np.float32), score=0.9)

    film = FaceTracker(max_gap_frames=5, keeps_faces=False)
    clip = FaceTracker(max_gap_frames=5)
    for frame in range(2000):
        # One stays and sways; others come and go.
        faces = [face(100 + 10 * np.sin(frame / 9))]
        faces += [face(300 + 2 * (frame % 50))] if frame % 50 < 20 else []
        assert film.update(frame, faces) == clip.update(frame, faces)
    assert film.num_tracks == clip.num_tracks == 41
    assert film.tracks == []
    held = [open_track.track for open_track in film._open]
    assert len(held) <= 2
    assert all(len(track.faces) <= 2 for track in held)
    assert len(clip.tracks[0].faces) == 2000
