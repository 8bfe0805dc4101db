"""Temporal post-filter: the predictions of one video's frames, smoothed over time.

Shape legend: T frames of one video in their order, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def filter_over_time(
    probability_TK: Tensor, window: int, has_prediction_T: Tensor | None = None
) -> Tensor:
    """The mean of each frame's predictions with those around it.

    At the ends of the video the window is cut, not padded. Frames without a prediction (no face
    was found) take no part in any mean; where a whole window has none, the frame gets the filtered
    prediction of the nearest frame that has one (the earlier of two).

    Args:
        probability_TK: float [T, K].
        window: frames of the mean, odd; 1 changes nothing but fills frames without a prediction.
        has_prediction_T: bool [T]; None: all have one.

    Returns:
        float [T, K].

    Raises:
        ValueError: an even window, or no frame has a prediction.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the post-filter's window={window} must be odd and at least 1")
    if has_prediction_T is None:
        has_prediction_T = torch.ones(
            len(probability_TK), dtype=torch.bool, device=probability_TK.device
        )
    if not bool(has_prediction_T.any()):
        raise ValueError(f"none of the video's {len(probability_TK)} frames has a prediction")
    weight_T1 = has_prediction_T[:, None].double()
    # torch.where: what stands where there is no prediction may be NaN.
    counted_TK = torch.where(has_prediction_T[:, None], probability_TK.double(), 0.0)
    sums_TK = _window_sum(counted_TK, window)
    counts_T1 = _window_sum(weight_T1, window)
    means_TK = sums_TK / counts_T1.clamp(min=1.0)
    return _from_nearest(means_TK, counts_T1[:, 0] > 0).to(probability_TK.dtype)


def _window_sum(values_TK: Tensor, window: int) -> Tensor:
    reach = window // 2
    padded_KT = F.pad(values_TK.T, (reach, reach))
    return padded_KT.unfold(1, window, 1).sum(dim=2).T


def _from_nearest(values_TK: Tensor, has_value_T: Tensor) -> Tensor:
    """Rows without a value replaced by the nearest row with one, the earlier of two."""
    known_N = torch.nonzero(has_value_T)[:, 0]
    frame_T = torch.arange(len(values_TK), device=values_TK.device)
    after_T = torch.searchsorted(known_N, frame_T).clamp(max=len(known_N) - 1)
    before_T = (torch.searchsorted(known_N, frame_T, right=True) - 1).clamp(min=0)
    is_later_T = (known_N[after_T] - frame_T).abs() < (frame_T - known_N[before_T]).abs()
    nearest_T = torch.where(is_later_T, known_N[after_T], known_N[before_T])
    return values_TK[nearest_T]
