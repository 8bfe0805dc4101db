"""Made trees of published data sets: real little pictures and videos under their odd names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mien.clips.ingest import IngestReport
from mien.clips.ingest_dataset import ingest_dataset


class MadeTree:
    """Writes files below a folder and ingests it."""

    def __init__(self, root: Path, patterns: Path) -> None:
        self.root = root
        self._patterns = patterns

    def text(self, path: str, text: str, encoding: str = "utf-8") -> None:
        """A text file."""
        target = self._target(path)
        target.write_bytes(text.encode(encoding))

    def picture(self, path: str) -> None:
        """A picture of 24 x 16 pixels."""
        shutil.copy(self._patterns / f"picture{Path(path).suffix.lower()}", self._target(path))

    def frames(self, folder: str, names: Iterable[str]) -> None:
        """A folder of pictures."""
        for name in names:
            self.picture(f"{folder}/{name}")

    def video(self, path: str) -> None:
        """A video of five frames."""
        shutil.copy(self._patterns / f"video{Path(path).suffix.lower()}", self._target(path))

    def ingest(self, name: str, **options: object) -> IngestReport:
        """`ingest_dataset` of the tree."""
        return ingest_dataset(name, self.root, **options)  # type: ignore[arg-type]

    def _target(self, path: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture or video of each kind, to be copied."""
    folder = tmp_path_factory.mktemp("patterns")
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    for suffix in (".jpg", ".png"):
        Image.fromarray(pixels).save(folder / f"picture{suffix}")
    for suffix, codec in ((".mp4", "libx264"), (".avi", "mpeg4"), (".flv", "flv")):
        with av.open(str(folder / f"video{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=20)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for index in range(5):
                picture = np.full((32, 32, 3), 40 * index, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


@pytest.fixture
def tree(tmp_path: Path, patterns: Path) -> MadeTree:
    """An empty tree."""
    root = tmp_path / "data set"
    root.mkdir()
    return MadeTree(root, patterns)


@pytest.fixture
def column() -> Callable[[IngestReport, str], dict[str, object]]:
    """A function from a report and a column to clip id -> value."""

    def values(report: IngestReport, name: str) -> dict[str, object]:
        ids = report.manifest.column("clip_id")
        return dict(zip(ids, report.manifest.column(name), strict=True))

    return values
