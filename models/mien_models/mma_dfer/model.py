"""The network of MMA-DFER: two prompted encoders in lockstep, exchanges, joint temporal head.

::

    video [B, T, 3, H, W] -> patches + prompts -block-exchange-+offset-block- ... -> CLS a frame
                                                      |                                |
    audio [B, F, M]       -> patches + prompts -block-exchange-+offset-block- ... -> CLS
                                                                                       |
    logits <- classifier <- CLS <- temporal transformer <- joint projection <-------- sum

Shape legend: B clips, T frames, C channels, H W pixels, F audio frames, M mels, N tokens,
D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mien_models.layers.patch_encoder import PatchEncoder, PatchGrid
from mien_models.mma_dfer.config import MmaDferConfig, TemporalConfig
from mien_models.mma_dfer.fusion import Exchange, Presence, Routes, plan_routes


class PromptedEncoder(PatchEncoder):
    """A patch encoder with progressive prompts behind its patches.

    Attributes:
        prompts: [stages * per stage, D], or None without prompts.
        prompt_offsets: [stages, per stage, D]: added to a stage's prompts after its first block;
            None if they are not progressive.
    """

    def __init__(
        self,
        config: MmaDferConfig,
        grid: PatchGrid,
        code_grid: tuple[int, int] | None,
    ) -> None:
        stages = config.prompts.num_stages(config.encoder.depth)
        num_prompts = stages * config.prompts.per_stage
        super().__init__(
            config.encoder,
            grid,
            num_extra_tokens=num_prompts,
            extra_position_std=config.prompts.position_std,
            code_grid=code_grid,
        )
        self.stage_period = config.prompts.stage_period
        self.prompts = self.prompt_offsets = None
        if num_prompts:
            shape = (stages, config.prompts.per_stage, self.dim)
            self.prompts = nn.Parameter(torch.randn(num_prompts, self.dim) * self.dim**-0.5)
            if config.prompts.progressive:
                self.prompt_offsets = nn.Parameter(torch.randn(shape) * self.dim**-0.5)

    def tokens(self, pictures_BCHW: Tensor) -> Tensor:
        """Input of the first block, [B, N, D]: class token, patches, prompts, plus positions."""
        patches_BND = self.embed(pictures_BCHW)
        parts = [self.cls_token.to(patches_BND.dtype), patches_BND]
        if self.prompts is not None:
            parts.append(self.prompts.to(patches_BND.dtype)[None])
        batch = pictures_BCHW.shape[0]
        expanded = [part.expand(batch, -1, -1) for part in parts]
        return torch.cat(expanded, dim=1) + self.positions

    def add_offset(self, block: int, tokens_BND: Tensor) -> Tensor:
        """The tokens that enter the block after ``block`` (counted from 0)."""
        if self.prompt_offsets is None or block % self.stage_period:
            return tokens_BND
        stage = block // self.stage_period
        offset_PD = self.prompt_offsets[stage]
        num_prompts = self.prompt_offsets.shape[0] * self.prompt_offsets.shape[1]
        before = tokens_BND.shape[-2] - num_prompts + stage * len(offset_PD)
        after = num_prompts - (stage + 1) * len(offset_PD)
        return tokens_BND + F.pad(offset_PD, (0, 0, before, after)).to(tokens_BND.dtype)


class ClsReadout(nn.Module):
    """The class token."""

    def forward(self, tokens_ND: Tensor, valid_BN: Tensor | None) -> Tensor:
        """[..., N, D] to [..., D]."""
        return tokens_ND[..., 0, :]


class PatchReadout(nn.Module):
    """A few features of every patch, joined with weights of their own for each place."""

    def __init__(self, dim: int, width: int, num_patches: int) -> None:
        super().__init__()
        self.last = 1 + num_patches
        self.squeeze = nn.Linear(dim, width)
        self.join = nn.Linear(width * num_patches, dim)

    def forward(self, tokens_ND: Tensor, valid_BN: Tensor | None) -> Tensor:
        """[..., N, D] to [..., D]; patches that aren't valid count as zeros."""
        patches_NR: Tensor = self.squeeze(tokens_ND[..., 1 : self.last, :])
        if valid_BN is not None:
            patches_NR = torch.where(valid_BN[:, 1 : self.last, None], patches_NR, 0.0)
        return self.join(patches_NR.flatten(-2))  # type: ignore[no-any-return]


class TemporalBlock(nn.Module):
    """Pre-norm block over time: queries and keys without bias, tanh-approximated GELU."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.head_dim
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(config.dim)
        self.query = nn.Linear(config.dim, inner, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * inner, bias=False)
        self.attention_out = nn.Linear(inner, config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim)
        self.mlp_in = nn.Linear(config.dim, config.mlp_dim)
        self.mlp_out = nn.Linear(config.mlp_dim, config.dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        normed = self.attention_norm(tokens_BND)
        heads = (self.query(normed), *self.key_value(normed).chunk(2, dim=-1))
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in heads
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens_BND = tokens_BND + self.attention_out(mixed)
        hidden = F.gelu(self.mlp_in(self.mlp_norm(tokens_BND)), approximate="tanh")
        return tokens_BND + self.mlp_out(hidden)  # type: ignore[no-any-return]


class JointHead(nn.Module):
    """Joint projection and multimodal temporal transformer; gives its class token [B, D]."""

    def __init__(
        self, encoder_dim: int, config: TemporalConfig, num_frames: int, *, learns_missing: bool
    ) -> None:
        super().__init__()
        self.project = nn.Linear(encoder_dim, config.dim)
        self.cls_token = self.positions = None
        if config.depth:
            tokens = config.token_std * torch.randn(1, 2 + num_frames, config.dim)
            self.cls_token = nn.Parameter(tokens[:, :1].clone())
            self.positions = nn.Parameter(tokens[:, 1:].clone())
        self.blocks = nn.ModuleList(TemporalBlock(config) for _ in range(config.depth))
        self.missing_video = nn.Parameter(torch.zeros(encoder_dim)) if learns_missing else None
        self.missing_audio = nn.Parameter(torch.zeros(encoder_dim)) if learns_missing else None

    def forward(self, video_BTD: Tensor, audio_BD: Tensor, presence: Presence) -> Tensor:
        """Class token after the last block, from the encoders' class tokens."""
        if presence.face_BT is not None and self.missing_video is not None:
            video_BTD = torch.where(presence.face_BT[..., None], video_BTD, self.missing_video)
        if presence.audio_B is not None and self.missing_audio is not None:
            audio_BD = torch.where(presence.audio_B[:, None], audio_BD, self.missing_audio)
        tokens_BTD = self.project(video_BTD + audio_BD[:, None])
        if self.cls_token is None or self.positions is None:
            mean_BD: Tensor = tokens_BTD.mean(dim=1)
            return mean_BD
        tokens_BTD = tokens_BTD + stretched_positions(self.positions[:, 1:], tokens_BTD.shape[1])
        first = self.cls_token + self.positions[:, :1]
        first = first.to(tokens_BTD.dtype).expand(tokens_BTD.shape[0], -1, -1)
        tokens = torch.cat([first, tokens_BTD], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]


def stretched_positions(positions_BTD: Tensor, num_frames: int) -> Tensor:
    """The frames' positions, stretched linearly to another number of frames."""
    if num_frames == positions_BTD.shape[1]:
        return positions_BTD
    stretched = F.interpolate(positions_BTD.transpose(1, 2), size=num_frames, mode="linear")
    return stretched.transpose(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkOutput:
    """Logits and what they are computed from."""

    logits_BK: Tensor
    features_BD: Tensor
    """The temporal class token."""


class MmaDferNetwork(nn.Module):
    """The whole network; see the drawing on top of this file."""

    def __init__(self, config: MmaDferConfig, num_classes: int) -> None:
        super().__init__()
        learns_missing = config.missing_modality == "learned"
        dim = config.encoder.dim
        self.operator = config.fusion.operator
        self.recompute = config.recompute_activations
        self.video_encoder = PromptedEncoder(config, config.video_grid, config.video_code_grid)
        self.audio_encoder = PromptedEncoder(config, config.audio_grid, config.audio_code_grid)
        self.exchanges = nn.ModuleDict(
            {
                str(block): Exchange(
                    dim,
                    config.fusion.width,
                    learns_missing=learns_missing,
                    audio_hears=config.fusion.operator != "one_way",
                    gate_start=config.fusion.gate_start,
                )
                for block in config.fusion.fused_blocks(config.encoder.depth)
            }
        )
        self.video_readout: nn.Module = ClsReadout()
        if config.readout == "patches":
            num_patches = config.video_grid.num_patches
            self.video_readout = PatchReadout(dim, config.readout_width, num_patches)
        self.audio_readout = ClsReadout()
        self.head = JointHead(
            dim, config.temporal, config.num_frames, learns_missing=learns_missing
        )
        self.classifier = nn.Linear(config.temporal.dim, num_classes)

    def forward(self, video_BTCHW: Tensor, audio_BFM: Tensor, presence: Presence) -> NetworkOutput:
        """Logits and features of a batch of normalised pictures and spectrograms."""
        frames = video_BTCHW.shape[1]
        video = self.video_encoder.tokens(video_BTCHW.flatten(0, 1))
        audio = self.audio_encoder.tokens(audio_BFM[:, None])
        video_BTND = video.unflatten(0, (-1, frames))
        grid = self.audio_encoder.grid.shape
        routes = plan_routes(self.operator, presence, (video_BTND, audio), grid)
        for index in range(len(self.video_encoder.blocks)):
            if self.recompute and torch.is_grad_enabled():
                video_BTND, audio = checkpoint(
                    self._layer, index, video_BTND, audio, routes, presence, use_reentrant=False
                )
            else:
                video_BTND, audio = self._layer(index, video_BTND, audio, routes, presence)
        video_BTD = self.video_readout(self.video_encoder.norm(video_BTND), None)
        audio_BD = self.audio_readout(self.audio_encoder.norm(audio), presence.audio_token_BN)
        features_BD = self.head(video_BTD, audio_BD, presence)
        return NetworkOutput(logits_BK=self.classifier(features_BD), features_BD=features_BD)

    def _layer(
        self, index: int, video_BTND: Tensor, audio_BND: Tensor, routes: Routes, presence: Presence
    ) -> tuple[Tensor, Tensor]:
        """One block of both encoders, the exchange after it, and the prompts' offsets."""
        frames = video_BTND.shape[1]
        audio_block = self.audio_encoder.blocks[index]
        audio_BND = audio_block(audio_BND, attn_mask=presence.attention_mask)
        video_block = self.video_encoder.blocks[index]
        video_BTND = video_block(video_BTND.flatten(0, 1)).unflatten(0, (-1, frames))
        if str(index) in self.exchanges:
            exchange = self.exchanges[str(index)]
            video_BTND, audio_BND = exchange(video_BTND, audio_BND, routes, presence)
        audio_BND = self.audio_encoder.add_offset(index, audio_BND)
        return self.video_encoder.add_offset(index, video_BTND), audio_BND
