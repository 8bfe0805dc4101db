"""Pretrained vision transformers as their authors publish them (the names of timm and MAE).

Shape legend: N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mien_models.layers.patch_encoder import EncoderConfig, PatchEncoder, PatchGrid
from mien_models.layers.positions import resize_grid
from mien_models.layers.pretrained import check_tensors, without

_IDLE = ("decoder_", "mask_token", "head.")
"""Names of a masked autoencoder that are not its encoder's."""


def vit_shapes(
    config: EncoderConfig, *, channels: int, patch: tuple[int, int], num_positions: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published encoder with a class token."""
    dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, num_positions, dim),
        "patch_embed.proj.weight": (dim, channels, *patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    layers = {
        "norm1": (dim,),
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "norm2": (dim,),
        "mlp.fc1": (hidden, dim),
        "mlp.fc2": (dim, hidden),
    }
    for block in range(config.depth):
        for layer, shape in layers.items():
            shapes[f"blocks.{block}.{layer}.weight"] = shape
            shapes[f"blocks.{block}.{layer}.bias"] = shape[:1]
    return shapes


def encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of a published masked autoencoder: without decoder, mask token and head."""
    return without(tensors, lambda name: name.startswith(_IDLE))


@torch.no_grad()
def load_vit(
    encoder: PatchEncoder,
    config: EncoderConfig,
    tensors: Mapping[str, Tensor],
    *,
    code_grid: tuple[int, int],
    what: str,
) -> None:
    """Puts a published encoder into ours; its position codes are stretched to our grid.

    Args:
        encoder: ours. Positions of further tokens (prompts) stay as they are.
        config: its size.
        tensors: published names; a decoder among them is passed over.
        code_grid: rows and columns of patches for which ``pos_embed`` was trained.
        what: name of the weights, for the error.

    Raises:
        WeightsMismatchError: lists what does not match; ``encoder`` is as before then.
    """
    found = encoder_tensors(tensors)
    grid: PatchGrid = encoder.grid
    expected = vit_shapes(
        config,
        channels=grid.channels,
        patch=grid.patch,
        num_positions=1 + code_grid[0] * code_grid[1],
    )
    check_tensors(found, expected, what)
    positions_ND = found.pop("pos_embed")[0]
    last = 1 + grid.num_patches
    encoder.positions[0, :1].copy_(positions_ND[:1])
    encoder.positions[0, 1:last].copy_(resize_grid(positions_ND[1:].float(), code_grid, grid.shape))
    own = encoder.state_dict()
    for name, tensor in found.items():
        own[name.replace("patch_embed.proj.", "patch_embed.")].copy_(tensor)


def published_names(encoder: PatchEncoder) -> dict[str, Tensor]:
    """Our encoder under the published names: what :func:`load_vit` reads (``code_grid`` its own).

    Positions of further tokens (prompts) and everything that a sub-class adds stay out.
    """
    last = 1 + encoder.grid.num_patches
    kept = ("cls_token", "patch_embed.", "blocks.", "norm.")
    tensors = {
        name.replace("patch_embed.", "patch_embed.proj."): tensor.detach()
        for name, tensor in encoder.state_dict().items()
        if name.startswith(kept)
    }
    return tensors | {"pos_embed": encoder.positions[:, :last].detach()}
