"""``mien serve`` as a user starts it on Ray Serve, and the page in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from export.export_cases import CLASSES, write_package
from serve.conftest import serving

from mien.serve.settings import ServeSettings
from mien_jobs.cli import main
from mien_jobs.prediction import model_parts

CHROMIUM = next(
    (path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None
)
TIMEOUT_S = 250


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package("clp", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of two replicas."""
    place = tmp_path_factory.mktemp("place")
    command = [sys.executable, "-m", "mien_jobs.cli", "serve", str(package)]
    options = ["--port", "0", "--replicas", "2", "--max-upload-mb", "1", "--device", "cpu"]
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("RAY_")}
    with (
        (place / "err.txt").open("wb") as errors,
        subprocess.Popen(
            [*command, *options],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"on (http://127\.0\.0\.1:\d+)/", process.stdout.readline())
            assert found, (place / "err.txt").read_text()
            yield found.group(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def page_server(package: Path) -> Iterator[str]:
    """The same application without Ray, which a page can't tell."""
    model = model_parts(package)
    card = {"name": "small", "method": "clp", "classes": list(CLASSES), "weights_sha256": "0" * 64}
    with serving(ServeSettings(max_upload_bytes=1 << 20, card=card), model) as address:
        yield address


@pytest.fixture
def clip(synth_manifest: Path) -> Path:
    return sorted(synth_manifest.parent.rglob("*.mp4"))[0]


@pytest.mark.slow
def test_it_answers_over_ray_serve(server: str, clip: Path, tmp_path: Path) -> None:
    card = requests.get(f"{server}/model", timeout=TIMEOUT_S).json()
    assert card["method"] == "clp"
    assert card["classes"] == list(CLASSES)
    assert len(card["weights_sha256"]) == 64
    with clip.open("rb") as file:
        reply = requests.post(f"{server}/predict", files={"file": file}, timeout=TIMEOUT_S)
    assert reply.status_code == 200, reply.text
    said = reply.json()
    assert len(said["frames"]) == 15
    assert all(0 <= frame["AU12"] <= 1 for frame in said["frames"])
    (tmp_path / "zeros.mp4").write_bytes(bytes(2 << 20))
    with (tmp_path / "zeros.mp4").open("rb") as file:
        reply = requests.post(f"{server}/predict", files={"file": file}, timeout=TIMEOUT_S)
    assert reply.status_code == 413


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(page_server: str, clip: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    fault = tmp_path / "noise.mp4"
    fault.write_bytes(b"no film" * 50)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.set_default_timeout(1000 * TIMEOUT_S)
        said: list[str] = []
        page.on(
            "console",
            lambda message: said.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_server)
        wait_until(page, "document.getElementById('model').textContent.includes('clp')")
        _drop_and_watch(page, clip)
        # Nothing offended the page's own policy, and nothing was fetched from elsewhere.
        assert said == []
        assert all(url.startswith((f"{page_server}/", "blob:")) for url in asked)
        page.set_input_files("#file", str(fault))
        page.wait_for_selector("#warnings li.error")
        assert "noise.mp4 is not a media file" in page.inner_text("#warnings")
        assert page.is_hidden("#result")
        large = tmp_path / "large.mp4"
        large.write_bytes(bytes(2 << 20))
        page.set_input_files("#file", str(large))
        page.wait_for_selector("#warnings li.error:has-text('larger than 1 MiB')")
        browser.close()


def _drop_and_watch(page, clip: Path) -> None:
    """Drops a film, moves its cursor, and sees the plots follow."""
    page.select_option("#window", "1 0.5")
    handle = page.evaluate_handle(
        """async (bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "face.mp4", {type: "video/mp4"}));
            return transfer;
        }""",
        list(clip.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": handle})
    page.wait_for_selector("#result:not([hidden])")
    assert "face.mp4, 0.6 s" in page.inner_text("#title")
    assert page.inner_text("#legend").split() == list(CLASSES)
    assert "% over the whole film" in page.inner_text("#verdict")
    wait_until(page, "document.getElementById('film').readyState >= 1")
    places = []
    for time_s in (0.1, 0.5):
        page.evaluate(f"document.getElementById('film').currentTime = {time_s}")
        wait_until(page, f"document.body.dataset.cursorS === '{time_s:.3f}'")
        places.append(page.evaluate(_CURSOR))
    width = page.evaluate("document.getElementById('classes').clientWidth")
    by_hand = [52 + (width - 52 - 18) * time_s / 0.6 for time_s in (0.1, 0.5)]
    assert places == pytest.approx(by_hand, abs=1.5)
    # A click on the plot takes the film there.
    page.click("#units", position={"x": 52 + (width - 70) / 2, "y": 40})
    wait_until(page, "Math.abs(document.getElementById('film').currentTime - 0.3) < 0.02")


def wait_until(page, claim: str) -> None:
    """Waits until a claim about the page holds; the page's policy forbids Playwright's own way."""
    page.evaluate(
        f"""() => new Promise((done) => {{
            const look = () => ({claim}) ? done() : setTimeout(look, 20);
            look();
        }})"""
    )


_CURSOR = """() => {
    const canvas = document.getElementById("classes");
    const scale = canvas.width / canvas.clientWidth, y = Math.round(100 * scale);
    const row = canvas.getContext("2d").getImageData(0, y, canvas.width, 1).data;
    const found = [];
    for (let x = 0; x < canvas.width; x++) {
        const [red, green, blue, alpha] = row.slice(4 * x, 4 * x + 4);
        if (red > 150 && green < 90 && blue < 90 && alpha > 200) found.push(x / scale);
    }
    return found.reduce((sum, x) => sum + x, 0) / found.length;
}"""
"""Where the red line of the cursor stands."""


def test_wrong_options_are_told(package: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("MIEN_SERVE_TOKEN", raising=False)
    for options, told in (
        (["--host", "0.0.0.0"], "MIEN_SERVE_TOKEN"),
        (["--replicas", "0"], "expected 1 or more"),
        (["--max-upload-mb", "0"], "expected more than 0"),
    ):
        assert main(["serve", str(package), *options]) == 2
        assert told in capsys.readouterr().err
