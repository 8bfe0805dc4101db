"""``mien serve MODEL``: a model over HTTP, with a page to drop a video on."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.infer.many_films import ModelParts
    from mien.serve.settings import ServeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from mien_jobs.verbs.model_options import add_model_argument, add_registry_options

    add_model_argument(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; another than this machine's own needs the environment "
        "variable MIEN_SERVE_TOKEN, which requests then have to bring (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free")
    parser.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="processes with a network each"
    )
    parser.add_argument(
        "--films-at-once", type=int, default=2, metavar="N", help="that a replica reads"
    )
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="windows that a network sees at once"
    )
    parser.add_argument(
        "--max-upload-mb", type=int, default=200, metavar="MB", help="default: %(default)s"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="longest film that is read (default: %(default)g); mien predict reads any",
    )
    parser.add_argument(
        "--allow-uri",
        nargs="+",
        default=[],
        metavar="PREFIX",
        help="folders or s3://... below which requests may name films instead of uploading them",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_registry_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted."""
    from mien.serve.settings import free_port
    from mien.track.references import resolve
    from mien.train.local_ray import ray_session
    from mien.train.plan import TrainPlan
    from mien_jobs.prediction import model_parts
    from mien_jobs.tracking import tracking_uri

    if args.replicas < 1:
        raise ValueError(f"--replicas {args.replicas}: expected 1 or more")
    package = resolve(tracking_uri(args.registry, args.storage), args.model)
    model = model_parts(package)
    settings = _settings(args, model, package)
    port = free_port(settings.host, args.port)
    _check_installed()
    from mien.serve.on_ray import serving  # takes seconds: after what may be wrong

    stopped = _stop_signals()
    with (
        ray_session(TrainPlan(workers=0), num_cpus=args.replicas),
        serving(model, settings, port=port, num_replicas=args.replicas),
    ):
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"{args.model} ({model.info.method}) on http://{host}:{port}/ - stop: Ctrl+C")
        print(f"  curl -F file=@FILM.mp4 http://{host}:{port}/predict", flush=True)
        stopped.wait()
    print("stopped")
    return 0


def _check_installed() -> None:
    wanted = {"watchfiles": "ray[serve]", "python_multipart": "python-multipart"}
    missing = [name for module, name in wanted.items() if find_spec(module) is None]
    if missing:
        raise ValueError(
            f"mien serve needs {' and '.join(missing)}: "
            "pip install -c constraints.txt -e '.[serve]'"
        )


def _settings(args: argparse.Namespace, model: ModelParts, package: Path) -> ServeSettings:
    from mien.media.storage import absolute
    from mien.serve.settings import TOKEN_VARIABLE, ServeSettings
    from mien.train.world import choose_device
    from mien_jobs.data import prediction_plan

    return ServeSettings(
        host=args.host,
        token=os.environ.get(TOKEN_VARIABLE, ""),
        max_upload_bytes=args.max_upload_mb << 20,
        max_film_s=args.max_seconds,
        uri_prefixes=tuple(absolute(prefix) for prefix in args.allow_uri),
        plan=prediction_plan(model.info),
        device=str(choose_device(args.device)),
        batch_size=args.batch,
        films_at_once=args.films_at_once,
        card=_card(args.model, model, package),
    )


def _card(name: str, model: ModelParts, package: Path) -> Mapping[str, Any]:
    """What ``/model`` tells."""
    from mien.track.model_card import CARD_FILE, INTENDED_USE

    info = model.info
    text = package / CARD_FILE
    licences = {part: facts.get("licence", "") for part, facts in info.pretrained.items()}
    return {
        "name": Path(name).resolve().parent.name if Path(name).is_dir() else name,
        "method": info.method,
        "classes": list(info.label_set.classes),
        "action_units": list(model.action_units),
        "weights_sha256": info.weights_sha256,
        "licence": ", ".join(sorted({value for value in licences.values() if value})),
        "licences_of_given_weights": licences,
        "trained": info.created,
        "mien_version": info.mien_version,
        "metrics": dict(info.metrics),
        "probabilities": "raw; calibrated: softmax(log(p) / temperature)",
        "temperatures": dict(info.temperatures),
        "intended_use": INTENDED_USE,
        "model_card": text.read_text(encoding="utf-8") if text.is_file() else None,
    }


def _stop_signals() -> threading.Event:
    """Set when somebody wants the server to stop."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped
