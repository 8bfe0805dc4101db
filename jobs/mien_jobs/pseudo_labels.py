"""What a model of DTM says about clips without label, as a queue for review."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.evaluate.pseudo_label_plot import plot_pseudo_labels
from mien.infer.package import PackageInfo
from mien.media.storage import join, write_bytes_atomically
from mien.review.items import ReviewItem
from mien.stream.source import ClipSource
from mien.track.tracker import Tracker
from mien_jobs.data import load_plan, trained_on
from mien_models.contract import ClipBatch, Method
from mien_models.dtm import Dtm


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelled:
    """The pseudo-labels of a manifest's clips without label."""

    accepted: list[ReviewItem]
    """Those that training would believe, the most doubtful first."""
    refused: int


@torch.no_grad()
def pseudo_label(
    method: Dtm,
    info: PackageInfo,
    manifest: Manifest,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PseudoLabelled:
    """Looks at every clip without label, as it is and mirrored, and asks the model's thresholds.

    An accepted pseudo-label is the more doubtful the nearer the second class is; those on which
    the two looks disagree come first.

    Args:
        method: restored from its package.
        info: of the package.
        manifest: clips that may be used.
        progress: called after each batch.

    Raises:
        ValueError: no clip is without label.
    """
    everyone = Split(name="review", train=(), val=(), test=tuple(manifest.column("clip_id")))
    plan = load_plan(trained_on(info))
    source = ClipSource(manifest, everyone, info.label_set, seed=0, plan=plan)
    stream = replace(info.prediction_stream.for_prediction("all"), labelled=False)
    total = source.num_clips(stream)
    if not total:
        raise ValueError(
            "every clip of the manifest has a label, so there is no pseudo-label to review; name "
            "a manifest with unlabelled clips with --data"
        )
    doubtful: list[tuple[tuple[bool, float, str], ReviewItem]] = []
    done = 0
    for batch in source.scan(stream):
        looks = [_probabilities(method, one) for one in (batch, _mirrored(batch))]
        for row, clip_id in enumerate(batch.clip_ids):
            item = _judged(method, clip_id, looks[0][row], looks[1][row])
            if item is not None:
                margin, agree = item.facts["margin"], item.facts["looks_agree"]
                assert isinstance(margin, float)
                doubtful.append(((agree == "yes", margin, clip_id), item))
        done += len(batch)
        progress(done, total)
    accepted = [item for _, item in sorted(doubtful, key=lambda pair: pair[0])]
    return PseudoLabelled(accepted=accepted, refused=done - len(accepted))


def track_pseudo_labels(tracker: Tracker, method: Method, *, folder: str) -> None:
    """One picture of the epochs' pseudo-labels: into the run and its folder; nothing for others."""
    if not isinstance(method, Dtm) or not method.told_epochs:
        return
    figure = plot_pseudo_labels(method.told_epochs, method.classes)
    tracker.log_figure("pseudo_labels.png", figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes_atomically(join(folder, "pseudo_labels.png"), picture.getvalue())


def _probabilities(method: Dtm, batch: ClipBatch) -> Tensor:
    return method.predict(batch).logits_BK.float().softmax(dim=1)


def _mirrored(batch: ClipBatch) -> ClipBatch:
    view = replace(batch.views[0], video_BTCHW=batch.video_BTCHW.flip(-1))
    return replace(batch, views=(view,))


def _judged(method: Dtm, clip_id: str, plain_K: Tensor, mirrored_K: Tensor) -> ReviewItem | None:
    """The pseudo-label of one clip; None where the model's threshold refuses it."""
    mean_K = (plain_K + mirrored_K) / 2
    top, order = mean_K.sort(descending=True)
    best = int(order[0])
    threshold = float(method.rule.thresholds_K[best])
    if float(top[0]) < threshold or method.classes[best] in method.config.no_pseudo_labels:
        return None
    agree = int(plain_K.argmax()) == int(mirrored_K.argmax())
    runner_up = method.classes[int(order[1])] if len(order) > 1 else None
    second = float(top[1]) if len(order) > 1 else 0.0
    return ReviewItem(
        clip_id=clip_id,
        given=None,
        suggested=method.classes[best],
        reason="accepted" if agree else "accepted, looks disagree",
        facts={
            "confidence": round(float(top[0]), 6),
            "threshold": round(threshold, 6),
            "margin": round(float(top[0]) - second, 6),
            "runner_up": runner_up,
            "looks_agree": "yes" if agree else "no",
        },
        probabilities=dict(zip(method.classes, mean_K.tolist(), strict=True)),
    )
