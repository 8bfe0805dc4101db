"""Answers over real HTTP: the words and numbers of ``mien predict``, and what is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from infer.colour_method import COLOURS, RED, ColourMethod
from serve.conftest import parts_of, serving

from mien.infer.predict import predict_file
from mien.media.errors import ClipError
from mien.serve.settings import ServeError, ServeSettings, is_loopback
from mien.serve.web import plain_name
from mien_models.contract import ClipBatch, Prediction

Film = Callable[..., Path]
TIMEOUT_S = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of colours on faces, with small limits."""
    films = tmp_path_factory.mktemp("films")
    settings = ServeSettings(
        max_upload_bytes=1 << 20,
        max_film_s=12,
        uri_prefixes=(str(films),),
        card={"name": "colours", "classes": list(COLOURS.classes), "folder": str(films)},
    )
    with serving(settings) as address:
        yield address


def upload(server: str, path: Path, **options: object) -> requests.Response:
    with path.open("rb") as file:
        return requests.post(
            f"{server}/predict", files={"file": (path.name, file)}, timeout=TIMEOUT_S, **options
        )


def predicted(path: Path):
    method = ColourMethod()
    return predict_file(path, method=method, label_set=COLOURS, stream=method.prediction_stream())


def test_an_upload_is_answered_as_predict_answers(server: str, face_film: Path) -> None:
    reply = upload(server, face_film)
    assert reply.status_code == 200, reply.text
    said, expected = reply.json(), predicted(face_film)
    assert said["input"] == face_film.name
    assert said["warnings"] == list(expected.warnings)
    (window,), (row,) = said["windows"], expected.windows
    assert [window[f"p_{name}"] for name in COLOURS.classes] == list(row.probabilities)
    assert (window["start_s"], window["end_s"]) == (row.start_s, row.end_s)
    assert window["has_audio"] is True
    # One window: the whole film's reading is that window's, and so is every frame's.
    (person,) = said["people"]
    assert person["windows"] == 1
    assert person["label"] == window["label"]
    assert person["probability"] == window["probability"]
    assert len(said["frames"]) == round(said["duration_s"] * 25)
    assert {frame["label"] for frame in said["frames"]} == {window["label"]}
    assert "mien-serve-" not in reply.text


def test_no_face_and_no_sound_are_no_errors(server: str, film: Film) -> None:
    path = film([RED], tone=False)
    reply = upload(server, path)
    assert reply.status_code == 200
    said = reply.json()
    assert [window["reason"] for window in said["windows"]] == ["no_face"]
    assert said["people"] == []
    assert said["warnings"] == list(predicted(path).warnings)
    assert len(said["warnings"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("noise.mp4", bytes(range(256)) * 40, "not_a_video"),
        ("nothing.mp4", b"", "empty_file"),
        # FFmpeg would open what a playlist names.
        ("list.m3u8", b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n", "not_a_video"),
    ],
)
def test_a_film_that_cannot_be_used_gets_the_words_of_predict(
    server: str, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    reply = upload(server, path)
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["reason"] == reason
    with pytest.raises(ClipError) as expected:
        predicted(path)
    assert error["message"] == str(expected.value).replace(f"{tmp_path}/", "")


def test_an_upload_beyond_the_limit_is_refused(server: str, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(3 << 20))
    reply = upload(server, path)
    assert reply.status_code == 413
    assert reply.json()["error"]["reason"] == "too_large"
    assert "larger than 1 MiB" in reply.json()["error"]["message"]

    def chunks() -> Iterator[bytes]:
        """A form of unknown length."""
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        for _ in range(20):
            yield bytes(64 << 10)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = requests.post(f"{server}/predict", data=chunks(), headers=headers, timeout=TIMEOUT_S)
    assert (reply.status_code, reply.json()["error"]["reason"]) == (413, "too_large")


def test_a_film_beyond_the_limit_is_refused(server: str, film: Film) -> None:
    reply = upload(server, film([RED] * 13, tone=False, side=32))
    assert (reply.status_code, reply.json()["error"]["reason"]) == (413, "too_long")
    assert "mien predict" in reply.json()["error"]["message"]


def test_a_request_may_ask_for_windows(server: str, face_film: Path) -> None:
    reply = upload(server, face_film, data={"window_s": "0.3", "step_s": "0.1"})
    assert reply.status_code == 200, reply.text
    windows = reply.json()["windows"]
    assert [window["start_s"] for window in windows] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    for wrong in ({"window_s": "soon"}, {"window_s": "-1"}, {"window_s": "1", "step_s": "0.001"}):
        reply = upload(server, face_film, data=wrong)
        assert (reply.status_code, reply.json()["error"]["reason"]) == (400, "bad_window")


def test_what_is_no_film_is_told_what_was_expected(server: str) -> None:
    for options in ({"data": b"{"}, {"json": {"file": "x"}}, {"files": {"video": b"x"}}):
        reply = requests.post(f"{server}/predict", timeout=TIMEOUT_S, **options)
        assert reply.status_code == 400
        assert "`file`" in reply.json()["error"]["message"]
    assert requests.get(f"{server}/predict", timeout=TIMEOUT_S).status_code == 405


def test_a_film_may_be_named_only_below_what_is_allowed(
    server: str, film: Film, tmp_path: Path
) -> None:
    films = Path(requests.get(f"{server}/model", timeout=TIMEOUT_S).json()["folder"])
    path = film([RED], tone=False)
    path.rename(films / "red.mp4")

    def ask(uri: str) -> requests.Response:
        return requests.post(f"{server}/predict", json={"uri": uri}, timeout=TIMEOUT_S)

    reply = ask(f"{films}/red.mp4")
    assert reply.status_code == 200
    assert len(reply.json()["frames"]) == 10
    assert ask(f"{films}/missing.mp4").json()["error"]["reason"] == "missing_file"
    for uri in (f"{films}-other/red.mp4", f"{films}/../red.mp4", "/etc/hostname", "http://x/y"):
        reply = ask(uri)
        assert (reply.status_code, reply.json()["error"]["reason"]) == (403, "uri_not_allowed")


def test_a_token_is_wanted_where_there_is_one(film: Film) -> None:
    path = film([RED], tone=False)
    with serving(ServeSettings(token="s3cret", host="0.0.0.0")) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            reply = upload(server, path, headers=headers)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            assert requests.get(f"{server}/model", headers=headers, timeout=9).status_code == 401
        reply = upload(server, path, headers={"Authorization": "Bearer s3cret"})
        assert reply.status_code == 200
        # Nothing in these is secret, and probes have no token.
        for open_to_all in ("/", "/healthz"):
            assert requests.get(server + open_to_all, timeout=9).status_code == 200


def test_other_machines_only_with_a_token() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "mien.example"):
        with pytest.raises(ServeError, match="MIEN_SERVE_TOKEN"):
            ServeSettings(host=host)
    assert [is_loopback(host) for host in ("localhost", "127.3.0.1", "::1")] == [True] * 3
    assert not is_loopback("::")


def test_a_web_page_under_another_name_is_refused(server: str) -> None:
    reply = requests.get(f"{server}/model", headers={"Host": "evil.example"}, timeout=9)
    assert reply.status_code == 400


def test_the_page_fetches_nothing_from_elsewhere(server: str) -> None:
    for name in ("", "page.css", "page.js"):
        reply = requests.get(f"{server}/{name}", timeout=9)
        assert reply.status_code == 200
        # The one address is the name of SVG's elements.
        addresses = set(re.findall(r"https?://[^\s\"']+", reply.text))
        assert addresses <= {"http://www.w3.org/2000/svg"}
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<[^>]+ (on\w+|style)=|<style|<script>", reply.text)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\a b.mp4", "a_b.mp4"),
        ("", "film"),
        ("..", "film"),
        (".hidden.mp4", "hidden.mp4"),
        ("x" * 500 + ".mp4", "x" * 76 + ".mp4"),
    ],
)
def test_names_of_uploads_are_harmless(name: str, plain: str) -> None:
    assert plain_name(name) == plain


class WaitingMethod(ColourMethod):
    """Answers when it is allowed to; films of two requests come to it in one batch."""

    may_answer = threading.Event()
    sizes: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__(with_audio=False, align_faces=False)

    def predict(self, batch: ClipBatch) -> Prediction:
        assert self.may_answer.wait(TIMEOUT_S)
        WaitingMethod.sizes += (len(batch),)
        return super().predict(batch)


def test_requests_are_answered_while_films_are_read(film: Film) -> None:
    path = film([RED], tone=False)
    settings = ServeSettings(films_at_once=3)
    with serving(settings, parts_of(WaitingMethod)) as server, ThreadPoolExecutor(3) as clients:
        replies = [clients.submit(upload, server, path) for _ in range(3)]
        assert requests.get(f"{server}/healthz", timeout=TIMEOUT_S).json() == {"status": "ok"}
        assert not any(reply.done() for reply in replies)
        WaitingMethod.may_answer.set()
        labels = {reply.result().json()["people"][0]["label"] for reply in replies}
    assert labels == {"red"}
    assert sum(WaitingMethod.sizes) == 3
