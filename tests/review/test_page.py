"""The page: self-contained, safe with any name, with faces at the moments that were asked for."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.clips.manifest import Manifest
from mien.review.export import PageSettings, write_review
from mien.review.items import ReviewItem
from mien.review.page import review_page
from mien.review.pictures import clip_pictures

CLASSES = ("happiness", "sadness", "anger")
NASTY = '</script><img src=x onerror="document.title=1">'


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_pictures_are_where_the_moments_are(synth_manifest: Path) -> None:
    ref = Manifest.read(str(synth_manifest)).ref(0)
    found = clip_pictures(ref, (0.0, 1.0, 0.5, 0.5), face_px=48)
    # 15 frames at 25 a second: the first, the middle and the last one.
    assert found.times_s == pytest.approx((0.0, 7 / 25, 14 / 25), abs=1e-3)
    assert found.faces_NSSC.shape == (3, 48, 48, 3)
    assert not found.problem
    assert len(clip_pictures(ref, (), face_px=48).times_s) == 4


def test_a_clip_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    ref = Manifest.from_rows([{"clip_id": "a", "uri": "a.mp4"}], base=str(tmp_path)).ref(0)
    found = clip_pictures(ref, (), face_px=48)
    assert found.problem
    assert len(found.faces_NSSC) == 0


def test_names_cannot_break_out_of_the_page() -> None:
    item = ReviewItem(clip_id=NASTY, given=NASTY, suggested="anger", reason="noisy")
    page = review_page([item], {}, title=f"run {NASTY}", classes=CLASSES, notes=(NASTY,))
    assert NASTY not in page
    found = data_of(page)
    assert found["items"][0]["clip_id"] == NASTY
    assert found["title"] == f"run {NASTY}"
    # Nothing is fetched from anywhere.
    assert "http" not in page.replace(NASTY, "")


def test_a_folder_with_everything(synth_manifest: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(str(synth_manifest))
    ids = manifest.column("clip_id")[:3]
    items = [
        ReviewItem(clip_id=clip, given="anger", suggested="sadness", reason="noisy", moments=(0.5,))
        for clip in ids
    ]
    told = []
    settings = PageSettings(title="t", classes=CLASSES, pages=2, face_px=48)
    places = write_review(
        str(tmp_path), items, manifest, settings, lambda done, total: told.append((done, total))
    )
    assert told == [(1, 2), (2, 2)]
    assert len(Path(places["ranked.csv"]).read_text().splitlines()) == 4
    shown = data_of(Path(places["review.html"]).read_text())["items"]
    assert [item["clip_id"] for item in shown] == ids[:2]
    picture = shown[0]["pictures"][0]["src"].removeprefix("data:image/jpeg;base64,")
    face = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    wanted = clip_pictures(manifest.ref(0), (0.5,), face_px=48).faces_NSSC[0]
    assert np.abs(face.astype(float) - wanted).mean() < 8
    tasks = json.loads(Path(places["label_studio.json"]).read_text())
    assert [task["data"]["clip_id"] for task in tasks] == ids[:2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_the_page_runs_in_a_browser(tmp_path: Path) -> None:
    item = ReviewItem(
        clip_id=NASTY, given="anger", suggested="sadness", reason="noisy", facts={"margin": 0.5}
    )
    page = tmp_path / "review.html"
    page.write_text(review_page([item], {}, title="labels", classes=CLASSES))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [*command, profile, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "0 of 1 decided" in done.stdout
    assert "keep anger" in done.stdout
    assert "<title>labels</title>" in done.stdout
