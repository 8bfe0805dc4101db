"""The command line: ``mien VERB ...``.

One module a verb, in ``mien_jobs.verbs``, with ``add_arguments(parser)`` and ``run(args) -> int``
(the exit code). Only the module of the verb that is asked for is imported, so ``mien --help``
answers at once.

Exit codes: 0 done, 1 the verb found something wrong (``mien doctor``), 2 the user has to change
what was typed or given, 130 interrupted. A fault of Mien's own is a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import TracebackType

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "the whole way in minutes: clips, training, scores, registry, prediction"),
    "synth": ("synth", "make a data set of synthetic talking faces with known action units"),
    "ingest": ("ingest", "make a manifest of your own videos, or of a published data set"),
    "weights": ("weights", "import published weights, or look into a file of weights"),
    "clips": ("clips", "the clips of a manifest: table, figures, faults, faces, copies to share"),
    "forget": ("forget", "remove a person from manifests, caches and memories; list the models"),
    "cache": ("cache", "decode clips once, for every epoch and every run"),
    "train": ("train", "train a method on a manifest, on one machine or a cluster"),
    "tune": ("tune", "search for the settings that score best on people held out"),
    "submit": ("submit", "run any of these verbs on a Ray cluster or on Kubernetes"),
    "jobs": ("jobs", "jobs on clusters: list, logs, stop, status, resume"),
    "evaluate": ("evaluate", "score a model on the people it has never seen"),
    "promote": ("promote", "make a model champion of the registry if it beats the one there is"),
    "rollback": ("rollback", "make the champion before champion again"),
    "benchmark": ("benchmark", "a method under a published protocol, beside published results"),
    "probe": ("probe", "what else a model's features tell: who it is, where the head points"),
    "robustness": ("robustness", "how a model's scores fall with light, blur, noise, loss ..."),
    "explain": ("explain", "what predictions rest on: heat maps, modalities, and their checks"),
    "audit-labels": ("audit_labels", "which labels a run of rdfer doubts, for a person to decide"),
    "review": ("review", "doubtful pseudo-labels of a model of dtm, for a person to decide"),
    "predict": ("predict", "run a model over a video file"),
    "export": ("export", "a model as ONNX and torch.export files, checked against the package"),
    "serve": ("serve", "a model over HTTP, with a page to drop a video on"),
    "monitor": ("monitor", "whether new predictions still look as those that were accepted"),
    "list": ("list_methods", "list the methods, and the registered models"),
    "doctor": ("doctor", "check this machine and say what to type for what is missing"),
}
"""Verb: its module in ``mien_jobs.verbs``, and the line that ``mien --help`` shows."""

_OUR_PACKAGES = ("mien", "mien_models", "mien_jobs")

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A bar for every little file that is fetched.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # `uv run mien` would otherwise make Ray resolve the environment again on every node.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # OpenCV 5 warns about its own new engine whenever a face detector is made.
    "OPENCV_LOG_LEVEL": "ERROR",
}
"""Defaults of the environment: no usage statistics, and no noise of libraries."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code; the console script ``mien``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`mien list | head`); Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if not is_user_error(error) or os.environ.get("MIEN_DEBUG"):
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return 2


def is_user_error(error: Exception) -> bool:
    """Whether an exception is about what the user gave, not a fault of Mien.

    That is a ValueError which Mien itself raised (not one out of the depth of a library), and an
    error of the operating system about a file or a full disk.
    """
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, ValueError) and _raised_by_us(error.__traceback__)


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser of all verbs, with the options of one of them."""
    parser = argparse.ArgumentParser(
        prog="mien",
        description="Trains, searches and ships facial-expression models on Ray.",
        epilog="More about a verb: mien VERB --help. Start with: mien doctor, mien demo. "
        "MIEN_DEBUG=1 shows the traceback of every error.",
    )
    parser.add_argument("--version", action="version", version=f"mien {version('mien')}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, summary) in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
        )
        if name == verb:
            import_module(f"mien_jobs.verbs.{module}").add_arguments(sub)
    return parser


def _run(arguments: list[str]) -> int:
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    parsed = build_parser(verb).parse_args(arguments)
    module = import_module(f"mien_jobs.verbs.{VERBS[parsed.verb][0]}")
    return int(module.run(parsed))


def _raised_by_us(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _OUR_PACKAGES


def _message(error: Exception) -> str:
    """The error's words on one line, with the file that an OS error is about."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
