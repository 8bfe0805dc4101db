"""A film that is long for what is wanted of it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_long_film(path: Path) -> None:
    """Twenty seconds of noise: about 12 MB."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": "12", "qp": "12"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(500):
            picture = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
