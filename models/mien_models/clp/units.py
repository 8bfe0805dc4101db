"""Losses of action units with missing labels, and how often each unit is present.

Shape legend: B clips, T frames, U action units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.clp.config import UnitConfig
from mien_models.layers.worker_sums import sum_over_workers


class UnitCounts(nn.Module):
    """How often each unit was coded and present in the training so far, over all workers.

    Args:
        num_units: U.
    """

    present_U: Tensor
    coded_U: Tensor

    def __init__(self, num_units: int) -> None:
        super().__init__()
        for name in ("present_U", "coded_U"):
            self.register_buffer(name, torch.zeros(num_units, dtype=torch.float64))

    @torch.no_grad()
    def add(self, present_BTU: Tensor) -> None:
        """Takes in a batch: 1, 0, or NaN where not coded."""
        sums_2U = torch.stack([present_BTU.nansum(dim=(0, 1)), (~present_BTU.isnan()).sum((0, 1))])
        present_U, coded_U = sum_over_workers(sums_2U.double())
        self.present_U += present_U
        self.coded_U += coded_U

    @property
    def rate_U(self) -> Tensor:
        """float32 [U]: share of the coded frames in which a unit is present, as if each had been
        seen once present and once absent before."""
        return ((self.present_U + 1.0) / (self.coded_U + 2.0)).float()


def chosen_frames(clip_ids: Sequence[str], times_BT: Tensor, share: float) -> Tensor:
    """bool [B, T]: the frames whose labels are used, chosen by a hash of clip and time.

    The same frames in every epoch; those of a smaller share are among those of a larger one.

    Args:
        clip_ids: of the B clips.
        times_BT: seconds since the clip's start.
        share: in (0, 1].
    """
    chosen = [
        [_hashed_share(f"{clip}@{time:.3f}") < share for time in times_T]
        for clip, times_T in zip(clip_ids, times_BT.tolist(), strict=True)
    ]
    return torch.tensor(chosen, device=times_BT.device)


def _hashed_share(text: str) -> float:
    """Evenly spread in [0, 1)."""
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return float(int.from_bytes(digest, "big") / 2**48)


def presence(intensity_BTU: Tensor, present_from: float) -> Tensor:
    """1 from the intensity ``present_from`` on, 0 below, NaN where not coded."""
    present_BTU = (intensity_BTU >= present_from).float()
    return present_BTU.masked_fill(intensity_BTU.isnan(), torch.nan)


def unit_weights(rate_U: Tensor) -> Tensor:
    """``(1 / r_i) / sum(1 / r) * U``: rare units weigh more, 1 on average."""
    inverse_U = 1.0 / rate_U
    return inverse_U / inverse_U.sum() * len(rate_U)


def presence_loss(
    logits_BTU: Tensor, present_BTU: Tensor, weight_U: Tensor, present_weight_U: Tensor
) -> Tensor:
    """One weighted binary cross-entropy a clip, [B]: the mean over its coded frames and units.

    Args:
        logits_BTU: of presence.
        present_BTU: 1, 0, or NaN where not coded.
        weight_U: of each unit.
        present_weight_U: how often a present frame counts, of each unit.
    """
    is_coded_BTU = ~present_BTU.isnan()
    lost_BTU = F.binary_cross_entropy_with_logits(
        logits_BTU.float(),
        present_BTU.nan_to_num(),
        weight=weight_U.expand_as(logits_BTU),
        pos_weight=present_weight_U,
        reduction="none",
    )
    return _mean_where(lost_BTU, is_coded_BTU)


def intensity_loss(found_BTU: Tensor, intensity_BTU: Tensor) -> Tensor:
    """One squared error a clip, [B], of intensities in units of the whole scale (5)."""
    is_coded_BTU = ~intensity_BTU.isnan()
    error_BTU = (found_BTU.float() - intensity_BTU.nan_to_num()) / 5.0
    return _mean_where(error_BTU.square(), is_coded_BTU)


def weights_of(rate_U: Tensor, config: UnitConfig) -> tuple[Tensor, Tensor]:
    """Weights of units and of presence, [U] each, at the rates of the training so far."""
    weight_U = unit_weights(rate_U) if config.rare_units_weigh_more else torch.ones_like(rate_U)
    present_weight_U = ((1.0 - rate_U) / rate_U).clamp(1.0, config.max_present_weight)
    return weight_U, present_weight_U


def _mean_where(values_BTU: Tensor, counted_BTU: Tensor) -> Tensor:
    weight_BTU = counted_BTU.float()
    return (values_BTU * weight_BTU).sum(dim=(1, 2)) / weight_BTU.sum(dim=(1, 2)).clamp(min=1.0)
