"""The half of a masked autoencoder that is thrown away: masks, decoder, loss (He et al. 2022).

Shape legend: B pictures, N patches, K kept patches, P pixels of a patch, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mien_models.layers.patch_encoder import EncoderConfig, PatchGrid, transformer_block
from mien_models.layers.positions import sincos_grid


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchMask:
    """Which patches of each picture the encoder sees."""

    keep_BK: Tensor
    """int64 [B, K], the patches seen."""
    restore_BN: Tensor
    """int64 [B, N]: place of each patch in the order "seen ones first, then hidden ones"."""
    hidden_BN: Tensor
    """bool [B, N]."""


def mask_patches(noise_BN: Tensor, ratio: float) -> PatchMask:
    """Hides the patches with the largest noise.

    Args:
        noise_BN: [B, N], any numbers; independent uniform ones make a uniformly random mask.
        ratio: share of patches hidden; at least one patch stays seen and at least one is hidden.
    """
    num_patches = noise_BN.shape[1]
    num_kept = min(max(1, round(num_patches * (1.0 - ratio))), num_patches - 1)
    order_BN = noise_BN.argsort(dim=1, stable=True)
    restore_BN = order_BN.argsort(dim=1)
    return PatchMask(
        keep_BK=order_BN[:, :num_kept], restore_BN=restore_BN, hidden_BN=restore_BN >= num_kept
    )


class PatchDecoder(nn.Module):
    """A light transformer that paints the hidden patches from the encoded seen ones.

    Args:
        encoder_dim: features of the encoder's tokens.
        config: size of this decoder.
        grid: the patches.
    """

    codes_ND: Tensor

    def __init__(self, encoder_dim: int, config: EncoderConfig, grid: PatchGrid) -> None:
        super().__init__()
        num_pixels = grid.channels * grid.patch[0] * grid.patch[1]
        self.embed = nn.Linear(encoder_dim, config.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("codes_ND", sincos_grid(config.dim, grid.shape), persistent=False)
        self.blocks = nn.ModuleList(transformer_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.paint = nn.Linear(config.dim, num_pixels)

    def forward(self, encoded_BKD: Tensor, mask: PatchMask) -> Tensor:
        """Pixels of all patches, [B, N, P], from the class token and seen patches [B, 1 + K, D]."""
        tokens = self.embed(encoded_BKD)
        batch, num_patches = mask.restore_BN.shape
        num_hidden = num_patches - mask.keep_BK.shape[1]
        hidden = self.mask_token.to(tokens.dtype).expand(batch, num_hidden, -1)
        patches = torch.cat([tokens[:, 1:], hidden], dim=1)
        index = mask.restore_BN[..., None].expand(-1, -1, patches.shape[2])
        patches = patches.gather(1, index) + self.codes_ND
        tokens = torch.cat([tokens[:, :1], patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.paint(self.norm(tokens[:, 1:]))  # type: ignore[no-any-return]


def hidden_patch_error(painted_BNP: Tensor, target_BNP: Tensor, counted_BN: Tensor) -> Tensor:
    """Mean squared error over the counted patches of each picture.

    Targets are normalised patch by patch (He et al. 2022, "w/ norm"): zero mean, unit variance.

    Args:
        painted_BNP: the decoder's pixels.
        target_BNP: the picture's pixels.
        counted_BN: bool, hidden patches that hold something (not padding).

    Returns:
        float32 [B]; 0 where nothing is counted.
    """
    target_BNP = target_BNP.float()
    mean_BN1 = target_BNP.mean(dim=2, keepdim=True)
    variance_BN1 = target_BNP.var(dim=2, keepdim=True)
    target_BNP = (target_BNP - mean_BN1) / (variance_BN1 + 1e-6).sqrt()
    error_BN = (painted_BNP.float() - target_BNP).square().mean(dim=2)
    weight_BN = counted_BN.float()
    return (error_BN * weight_BN).sum(dim=1) / weight_BN.sum(dim=1).clamp(min=1.0)
