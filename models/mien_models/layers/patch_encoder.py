"""A vision transformer over a grid of patches, for pictures and spectrograms alike.

Shape legend: B pictures, C channels, H W pixels, N patch tokens, K kept patch tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mien_models.layers.positions import resize_grid, sincos_grid


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Size of a transformer encoder (defaults: ViT-B)."""

    dim: int = 768
    """Features a token; a multiple of ``num_heads`` and of 4."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    mlp_ratio: float = 4.0
    """Hidden features of a block's MLP, as a multiple of ``dim``."""
    drop_path: float = 0.0
    """Stochastic depth of the last block in training mode; the first has none, linear between."""

    def __post_init__(self) -> None:
        if self.depth < 1 or self.num_heads < 1:
            raise ValueError(
                f"depth={self.depth} and num_heads={self.num_heads} must be at least 1"
            )
        if self.dim % self.num_heads or self.dim % 4:
            raise ValueError(
                f"dim={self.dim} must be a multiple of num_heads={self.num_heads} and of 4"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchGrid:
    """How a picture (or a spectrogram: frames by mels) is cut into patches."""

    channels: int
    size: tuple[int, int]
    """Height and width of the picture."""
    patch: tuple[int, int]
    """Height and width of a patch; must divide ``size``."""

    def __post_init__(self) -> None:
        if any(side % part for side, part in zip(self.size, self.patch, strict=True)):
            raise ValueError(
                f"patches of {self.patch[0]} x {self.patch[1]} don't tile {self.size[0]} x "
                f"{self.size[1]}; choose a size that is a multiple of the patch"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    @property
    def num_patches(self) -> int:
        """Rows times columns."""
        return self.shape[0] * self.shape[1]

    def patches(self, pictures_BCHW: Tensor) -> Tensor:
        """Pixels of each patch, [B, N, C * patch height * patch width], columns fastest."""
        (rows, columns), (height, width) = self.shape, self.patch
        parts = pictures_BCHW.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        pixels: Tensor = parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return pixels


class PatchEncoder(nn.Module):
    """ViT with a class token: pre-norm blocks, qkv bias, exact GELU, LayerNorm eps 1e-6.

    Args:
        config: size of the transformer.
        grid: the patches.
        num_extra_tokens: tokens that a sub-class puts behind the patches; they get positions too.
        extra_position_std: their positions start as N(0, this).
        code_grid: the position codes start as those of this grid, stretched to ``grid`` (what
            loading an encoder pretrained at another size gives); None: those of ``grid`` itself.

    Attributes:
        positions: [1, 1 + N + extra, D]: class token, patches, extra tokens.
    """

    def __init__(
        self,
        config: EncoderConfig,
        grid: PatchGrid,
        *,
        num_extra_tokens: int = 0,
        extra_position_std: float = 1.0,
        code_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.dim = config.dim
        self.patch_embed = nn.Conv2d(
            grid.channels, config.dim, kernel_size=grid.patch, stride=grid.patch
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        num_tokens = 1 + grid.num_patches + num_extra_tokens
        self.positions = nn.Parameter(torch.empty(1, num_tokens, config.dim))
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(transformer_block(config, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self._reset(extra_position_std, code_grid or grid.shape)

    @torch.no_grad()
    def _reset(self, extra_position_std: float, code_grid: tuple[int, int]) -> None:
        nn.init.xavier_uniform_(self.patch_embed.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)
        codes_ND = resize_grid(sincos_grid(self.dim, code_grid), code_grid, self.grid.shape)
        last = 1 + self.grid.num_patches
        self.positions[:, :1] = 0.0
        self.positions[:, 1:last] = codes_ND.to(self.positions.device)
        nn.init.normal_(self.positions[:, last:], std=extra_position_std)

    def embed(self, pictures_BCHW: Tensor) -> Tensor:
        """Patch tokens without positions, [B, N, D]."""
        tokens: Tensor = self.patch_embed(pictures_BCHW)
        return tokens.flatten(2).transpose(1, 2)

    def encode_kept(self, pictures_BCHW: Tensor, keep_BK: Tensor) -> Tensor:
        """Encodes a subset of the patches, as a masked autoencoder does.

        Args:
            pictures_BCHW: float [B, C, H, W].
            keep_BK: int64 [B, K], which patches to look at.

        Returns:
            [B, 1 + K, D] after the final norm: class token, then the kept patches in order.
        """
        tokens_BND = self.embed(pictures_BCHW)
        tokens_BND = tokens_BND + self.positions[:, 1 : 1 + self.grid.num_patches]
        kept_BKD = tokens_BND.gather(1, keep_BK[..., None].expand(-1, -1, self.dim))
        first_BD = (self.cls_token + self.positions[:, :1]).expand(pictures_BCHW.shape[0], -1, -1)
        tokens = torch.cat([first_BD, kept_BKD], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]


def transformer_block(config: EncoderConfig, *, drop_path: float = 0.0) -> Block:
    """One pre-norm block with Xavier weights and zero biases (as masked autoencoders start)."""
    block = Block(
        config.dim,
        config.num_heads,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=True,
        drop_path=drop_path,
        norm_layer=lambda dim, **places: nn.LayerNorm(dim, eps=1e-6, **places),
    )
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return block


@torch.no_grad()
def start_as_identity(blocks: nn.ModuleList) -> None:
    """Makes untrained blocks pass their input on, which gets small encoders to learn in half the
    steps."""
    for block in blocks:
        assert isinstance(block, Block)
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.mlp.fc2.weight)
