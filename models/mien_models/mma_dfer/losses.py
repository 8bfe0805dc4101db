"""Loss of MMA-DFER.

Shape legend: B clips, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def classification_loss(
    logits_BK: Tensor,
    label_B: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights_K: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, a plain mean over the clips.

    With class weights it stays a mean over clips (torch's own divides by the sum of the weights),
    so that it doesn't depend on how a batch is shared between workers.

    Args:
        logits_BK: float [B, K].
        label_B: int64 [B], 0 to K - 1.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights_K: float [K].
    """
    losses_B = F.cross_entropy(
        logits_BK.float(),
        label_B,
        weight=class_weights_K,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return losses_B.mean()
