"""Whether a pretraining is alive: spread of the embeddings, evenness of the attention.

Shape legend: B clips, T frames, M frames, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien_models.clp.config import CollapseConfig
from mien_models.contract import EpochNotes
from mien_models.layers.worker_sums import sum_over_workers

_COUNTS = ("frames", "clips", "spread_in_clips", "rebuilt", "entropy", "to_mean")


class CollapsedError(ValueError):
    """A pretraining that learns nothing any more; says what collapsed and what to try."""


class CollapseMonitor(nn.Module):
    """Sums of an epoch over all workers; all of it is in checkpoints.

    Args:
        dim: E.
        config: when a run counts as dead.
    """

    embedding_sum_E: Tensor
    counts: Tensor
    dead_epochs: Tensor

    def __init__(self, dim: int, config: CollapseConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("embedding_sum_E", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(len(_COUNTS), dtype=torch.float64))
        self.register_buffer("dead_epochs", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe_embeddings(self, query_BTE: Tensor, usable_BT: Tensor) -> None:
        """Takes in a batch's embeddings, of unit length."""
        weight_BT = usable_BT.double()
        sum_BE = (query_BTE.double() * weight_BT[..., None]).sum(dim=1)
        frames_B = weight_BT.sum(dim=1)
        mean_BE = sum_BE / frames_B.clamp(min=1.0)[:, None]
        spread_B = (1.0 - mean_BE.square().sum(dim=1)) * (frames_B > 0)
        self.embedding_sum_E += sum_over_workers(sum_BE.sum(dim=0))
        self._count(
            frames=frames_B.sum(), clips=(frames_B > 0).sum(), spread_in_clips=spread_B.sum()
        )

    @torch.no_grad()
    def observe_attention(self, entropy_M: Tensor, to_mean_M: Tensor, counted_M: Tensor) -> None:
        """Takes in the attention of the frames that were rebuilt.

        Args:
            entropy_M: as a share of the highest one.
            to_mean_M: cosine of what was rebuilt to the mean of the dictionary.
            counted_M: bool, frames that were rebuilt.
        """
        weight_M = counted_M.double()
        self._count(
            rebuilt=weight_M.sum(),
            entropy=(entropy_M * weight_M).sum(),
            to_mean=(to_mean_M * weight_M).sum(),
        )

    def _count(self, **sums: Tensor) -> None:
        zero = torch.zeros_like(self.counts[0])
        parts = torch.stack([sums.get(name, zero).double() for name in _COUNTS])
        self.counts += sum_over_workers(parts)

    def end_epoch(self) -> EpochNotes:
        """The epoch's numbers; starts the next epoch.

        Raises:
            CollapsedError: dead for ``patience_epochs`` epochs in a row.
        """
        logs = self._logs()
        self.embedding_sum_E.zero_()
        self.counts.zero_()
        reason = self._reason(logs)
        dead_epochs = int(self.dead_epochs) + 1 if reason else 0
        self.dead_epochs.fill_(dead_epochs)
        if reason and 0 < self.config.patience_epochs <= dead_epochs:
            raise CollapsedError(f"pretraining has been dead for {dead_epochs} epochs: {reason}")
        return EpochNotes(logs=logs, warnings=(reason,) if reason else ())

    def _logs(self) -> dict[str, float]:
        count = dict(zip(_COUNTS, self.counts.tolist(), strict=True))
        mean_length = float(self.embedding_sum_E.norm()) / max(1.0, count["frames"])
        logs = {
            "embedding_spread": 1.0 - mean_length**2,
            "embedding_spread_in_clip": count["spread_in_clips"] / max(1.0, count["clips"]),
        }
        if count["rebuilt"] > 0:
            logs["attention_entropy"] = count["entropy"] / count["rebuilt"]
            logs["rebuilt_to_mean"] = count["to_mean"] / count["rebuilt"]
        return logs

    def _reason(self, logs: dict[str, float]) -> str:
        """Why the epoch was a dead one; empty where it was not."""
        spread, entropy = logs["embedding_spread"], logs.get("attention_entropy", 0.0)
        if spread < self.config.min_spread:
            return (
                f"all frames have the same embedding (spread {spread:.5f}, below "
                f"pretrain.collapse.min_spread={self.config.min_spread}); start anew with "
                "pretrain.instance_weight above 0, a smaller pretrain.optim.lr or a larger "
                "pretrain.momentum"
            )
        if entropy > self.config.max_entropy:
            return (
                "every face is rebuilt as the mean of the dictionary (attention entropy "
                f"{entropy:.5f} of 1, above pretrain.collapse.max_entropy="
                f"{self.config.max_entropy}); start anew with a smaller "
                "pretrain.reconstruction.attention_temperature, or with a smaller "
                "pretrain.reconstruction.top_k"
            )
        return ""
