"""Predictions of one video's frames, smoothed over time: a condition of its own beside the plain.

Shapes: T frames of a video, K classes.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from mien.clips.manifest import Manifest
from mien.evaluate.predictions import Predictions, make_predictions
from mien.media.storage import parent
from mien_models.contract import Method
from mien_models.dtm import Dtm
from mien_models.dtm.post_filter import filter_over_time

_TINY = 1e-9


def post_filter_frames(method: Method) -> int:
    """Frames of a method's temporal post-filter; 1: it has none."""
    return method.config.post_filter_frames if isinstance(method, Dtm) else 1


def post_filtered(found: Predictions, manifest: Manifest, window: int) -> Predictions:
    """The predictions of one modality, each the mean of those around it in its video.

    Pieces of one film (``start_s``) belong together, and pictures in one folder do, in the order
    of their names, which is how Aff-Wild2's frames lie. A frame without any face takes its
    neighbours' prediction.

    Args:
        found: of one modality.
        manifest: that holds the clips.
        window: frames of the mean, odd.

    Raises:
        ValueError: an even window.
    """
    clip_ids = found.table["clip_id"].to_pylist()
    refs = list(manifest.by_ids(clip_ids))
    videos: dict[str, list[int]] = defaultdict(list)
    for row, ref in enumerate(refs):
        videos[ref.uri if ref.start_s is not None else parent(ref.uri)].append(row)
    probability_NK = torch.from_numpy(found.column("probabilities"))
    has_face_N = torch.from_numpy(found.column("face_share").astype(float)) > 0
    smooth_NK = probability_NK.clone()
    for rows in videos.values():
        rows.sort(key=lambda row: (refs[row].start_s or 0.0, refs[row].uri, clip_ids[row]))
        known_T = has_face_N[rows]
        if bool(known_T.any()):
            smooth_NK[rows] = filter_over_time(probability_NK[rows], window, known_T)
    (modality,) = found.modalities
    return make_predictions(
        clip_ids=clip_ids,
        logits_NK=np.log(smooth_NK.numpy().clip(_TINY)),
        label_set=found.label_set,
        true_N=found.column("true_index"),
        modality=f"{modality}, {window} frames",
        split=found.table["split"][0].as_py(),
        subject_ids=found.table["subject_id"].to_pylist(),
        has_audio_N=found.column("has_audio"),
        face_share_N=found.column("face_share"),
        weights_sha256=found.table["weights_sha256"][0].as_py(),
    )
