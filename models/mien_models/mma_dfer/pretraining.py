"""How ``tiny`` learns its encoders before they are frozen: a (supervised) masked autoencoder.

Each encoder sees a few patches of a picture; a light decoder paints the others (He et al. 2022).
With ``label_weight`` the patches seen also have to tell the clip's label (Liang et al. 2022,
"SupMAE", there from mean tokens), which makes a short training go further.

Shape legend: B clips, T pictures of a clip (1 for sound), C channels, H W pixels, N patches,
D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.contract import UNLABELLED, ClipBatch
from mien_models.layers.masked_autoencoder import (
    PatchDecoder,
    PatchMask,
    hidden_patch_error,
    mask_patches,
)
from mien_models.layers.patch_encoder import PatchEncoder
from mien_models.mma_dfer.config import AutoencoderConfig


class EncoderPretraining(nn.Module):
    """What one encoder needs besides itself while it is pretrained.

    Args:
        encoder: the encoder; it stays outside, only its sizes are taken.
        settings: the stage.
        mask_ratio: share of patches hidden.
        num_classes: classes told apart if ``settings.label_weight`` is positive.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        settings: AutoencoderConfig,
        *,
        mask_ratio: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.label_weight = settings.label_weight
        self.decoder = PatchDecoder(encoder.dim, settings.decoder, encoder.grid)
        self.label_head = nn.Linear(encoder.dim, num_classes) if self.label_weight > 0 else None

    def forward(
        self,
        encoder: PatchEncoder,
        readout: nn.Module,
        pictures_BTCHW: Tensor,
        noise_BTN: Tensor,
        counted_BTN: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Painting error [B] and logits [B, K] (None without labels).

        Args:
            encoder: the encoder being trained.
            readout: what makes one vector of the encoder's tokens, for the labels.
            pictures_BTCHW: normalised frames, or spectrograms with T = 1.
            noise_BTN: uniform numbers that decide what is hidden.
            counted_BTN: bool [B, T, N], patches that hold something; a picture without any doesn't
                count at all.
        """
        num_pictures = pictures_BTCHW.shape[1]
        pictures_BCHW = pictures_BTCHW.flatten(0, 1)
        mask = mask_patches(noise_BTN.flatten(0, 1), self.mask_ratio)
        encoded_BKD = encoder.encode_kept(pictures_BCHW, mask.keep_BK)
        error_B = hidden_patch_error(
            self.decoder(encoded_BKD, mask),
            encoder.grid.patches(pictures_BCHW),
            mask.hidden_BN & counted_BTN.flatten(0, 1),
        )
        weight_BT = counted_BTN.any(dim=2).float()
        weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp(min=1.0)
        error_B = (error_B.unflatten(0, (-1, num_pictures)) * weight_BT).sum(dim=1)
        if self.label_head is None:
            return error_B, None
        read_BTD = readout(*_in_place(encoded_BKD, mask)).unflatten(0, (-1, num_pictures))
        return error_B, self.label_head((read_BTD * weight_BT[..., None]).sum(dim=1))


def _in_place(encoded_BKD: Tensor, mask: PatchMask) -> tuple[Tensor, Tensor]:
    """Class token and seen patches at their places among zeros [B, 1 + N, D], and which they are
    [B, 1 + N]."""
    batch, num_patches = mask.hidden_BN.shape
    index = mask.keep_BK[..., None].expand(-1, -1, encoded_BKD.shape[2])
    places = encoded_BKD.new_zeros(batch, num_patches, encoded_BKD.shape[2])
    places = places.scatter(1, index, encoded_BKD[:, 1:])
    valid_BN = F.pad(~mask.hidden_BN, (1, 0), value=True)
    return torch.cat([encoded_BKD[:, :1], places], dim=1), valid_BN


def pretraining_loss(
    batch: ClipBatch, error_B: Tensor, logits_BK: Tensor | None, label_weight: float
) -> Tensor:
    """Mean painting error plus the weighted cross-entropy of the labelled clips, over all clips."""
    loss = error_B.mean()
    if logits_BK is None:
        return loss
    is_labelled_B = batch.label_B != UNLABELLED
    target_B = torch.where(is_labelled_B, batch.label_B, 0)
    entropy_B = F.cross_entropy(logits_BK.float(), target_B, reduction="none")
    return loss + label_weight * torch.where(is_labelled_B, entropy_B, 0.0).mean()
