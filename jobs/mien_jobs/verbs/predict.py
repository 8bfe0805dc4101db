"""``mien predict VIDEO``: a model over a file, one row a window."""

from __future__ import annotations

import argparse

from mien.infer.frames import write_frame_faces
from mien.infer.predict import predict_file
from mien.track.registry import resolve
from mien.train.world import choose_device
from mien_jobs.data import prediction_plan
from mien_jobs.methods import load_method
from mien_jobs.tracking import tracking_uri


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("files", nargs="+", metavar="VIDEO", help="video files or frame folders")
    parser.add_argument(
        "--model",
        required=True,
        help="package folder, or NAME@alias or NAME/version of a registry",
    )
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="length of a window; default: by the file"
    )
    parser.add_argument("--out", metavar="FILE", help="also write the table: .csv, .parquet or .md")
    parser.add_argument(
        "--faces",
        metavar="FILE",
        help="also write where the face is in every single frame: .csv or .parquet",
    )
    parser.add_argument("--registry", default="auto", help="MLflow URI of the registry")
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Predicts every file and prints its table."""
    if len(args.files) > 1 and (args.out or args.faces):
        raise ValueError("--out and --faces hold one file's rows: give one VIDEO with them")
    device = choose_device(args.device)
    info, method = load_method(resolve(tracking_uri(args.registry, args.storage), args.model))
    plan = prediction_plan(info)
    print(f"{info.method}, classes {', '.join(info.label_set.classes)}, on {device}")
    for file in args.files:
        found = predict_file(
            file,
            method=method,
            label_set=info.label_set,
            stream=info.prediction_stream,
            plan=plan,
            device=device,
            window_s=args.window,
        )
        print(f"\n{file}\n{found.to_markdown()}")
        if args.out:
            found.write(args.out)
            print(f"wrote {args.out}")
        if args.faces:
            faces = write_frame_faces(file, args.faces)
            print(
                f"wrote {args.faces}: a face in {faces.num_with_face} of {faces.num_frames} frames"
            )
    return 0
