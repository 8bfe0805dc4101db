"""TCL: the order of a clip's frames in the embedding (temporal contrastive learning).

Shape legend: B clips, T query frames, S key frames of the same clip (S = T), E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.clp.config import TemporalConfig
from mien_models.contract import View

_COARSE = 16
"""Pixels a side at which pictures are compared: finer ones would compare noise."""


def temporal_loss(
    query_BTE: Tensor, key_BTE: Tensor, usable_BT: Tensor, distinct_BTT: Tensor, c: TemporalConfig
) -> Tensor:
    """One loss a clip, [B]: the mean over its triplets, or over its pairs (``infonce``).

    Args:
        query_BTE: unit vectors of the first view's frames.
        key_BTE: unit vectors of the same frames, otherwise augmented, without gradient.
        usable_BT: bool, frames that take part.
        distinct_BTT: bool, pairs of frames that show different pictures.
        c: form, margin, window.
    """
    cosine_BTS = query_BTE @ key_BTE.transpose(1, 2)
    near_TSS = near_and_far(cosine_BTS.shape[1], c.window, cosine_BTS.device)
    margin_TSS = margins(cosine_BTS.shape[1], c).to(cosine_BTS)
    pairs_BTS = usable_BT[:, :, None] & usable_BT[:, None, :]
    triplets = near_TSS & pairs_BTS[:, :, :, None] & pairs_BTS[:, :, None, :]
    triplets = triplets & distinct_BTT[:, None]
    if c.form == "hinge":
        return _hinge(cosine_BTS, margin_TSS, triplets)
    is_outside_TS = ~_is_near(cosine_BTS.shape[1], c.window, cosine_BTS.device)
    return _infonce(
        cosine_BTS, margin_TSS, triplets & is_outside_TS[:, None, :], temperature=c.temperature
    )


def near_and_far(num_frames: int, window: int, device: torch.device) -> Tensor:
    """bool [T, S, S]: frame i is within the window of t, and frame j is further away than i."""
    distance_TS = _distances(num_frames, device)
    is_near_TS = distance_TS <= window
    return is_near_TS[:, :, None] & (distance_TS[:, :, None] < distance_TS[:, None, :])


def margins(num_frames: int, c: TemporalConfig) -> Tensor:
    """[T, S, S]: the margin between a near frame i and a far frame j, seen from t.

    ``m0 (|t - j| - |t - i|) / T`` where the margin grows, else ``m0``.
    """
    if not c.margin_grows:
        return torch.full((num_frames,) * 3, c.margin)
    distance_TS = _distances(num_frames, torch.device("cpu")).float()
    further_TSS = distance_TS[:, None, :] - distance_TS[:, :, None]
    return c.margin * further_TSS / num_frames


def _hinge(cosine_BTS: Tensor, margin_TSS: Tensor, triplets_BTSS: Tensor) -> Tensor:
    """Mean over the triplets of ``[m_ij - s(t, i) + s(t, j)]+``."""
    lost = F.relu(margin_TSS - cosine_BTS[:, :, :, None] + cosine_BTS[:, :, None, :])
    weight = triplets_BTSS.float()
    return (lost * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1.0)


def _infonce(
    cosine_BTS: Tensor, margin_TSS: Tensor, triplets_BTSS: Tensor, *, temperature: float
) -> Tensor:
    """Mean over near pairs (t, i) of the cross-entropy of i among itself and the frames outside
    the window, each of which starts with its margin."""
    near_BTS = cosine_BTS[:, :, :, None]
    rivals = (cosine_BTS[:, :, None, :] + margin_TSS - near_BTS) / temperature
    rivals = rivals.masked_fill(~triplets_BTSS, -torch.inf)
    # -log(1 / (1 + sum exp(rivals))), safely: log of the sum with a zero beside the rivals.
    own = torch.zeros_like(rivals[..., :1])
    lost_BTS = torch.cat([own, rivals], dim=3).logsumexp(dim=3)
    weight_BTS = triplets_BTSS.any(dim=3).float()
    return (lost_BTS * weight_BTS).sum(dim=(1, 2)) / weight_BTS.sum(dim=(1, 2)).clamp(min=1.0)


def usable_frames(view: View) -> Tensor:
    """bool [B, T]: frames with a face that don't repeat the frame before (short clips repeat the
    last one)."""
    is_new_BT = torch.ones_like(view.has_face_BT)
    is_new_BT[:, 1:] = view.frame_times_BT[:, 1:] > view.frame_times_BT[:, :-1]
    return view.has_face_BT & is_new_BT


def distinct_frames(video_BTCHW: Tensor, min_change: float) -> Tensor:
    """bool [B, T, T]: pairs of frames whose pictures differ by at least ``min_change`` grey levels,
    as the mean over coarse pixels; all pairs where ``min_change`` is 0."""
    batch, frames = video_BTCHW.shape[:2]
    if min_change <= 0:
        return torch.ones(batch, frames, frames, dtype=torch.bool, device=video_BTCHW.device)
    coarse = F.adaptive_avg_pool2d(video_BTCHW.flatten(0, 1).float(), _COARSE)
    coarse_BTP = coarse.flatten(1).unflatten(0, (batch, frames))
    change_BTT: Tensor = torch.cdist(coarse_BTP, coarse_BTP, p=1.0) / coarse_BTP.shape[2]
    return change_BTT >= min_change


def _distances(num_frames: int, device: torch.device) -> Tensor:
    index_T = torch.arange(num_frames, device=device)
    return (index_T[:, None] - index_T[None, :]).abs()


def _is_near(num_frames: int, window: int, device: torch.device) -> Tensor:
    return _distances(num_frames, device) <= window
