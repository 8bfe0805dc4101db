"""MMA-DFER written down word for word from its description: what ``mma_dfer.py`` is compared with.

Attention matrices are spelt out, every part is a module of its own, nothing is fused or skipped.
Parameters have the names of the published checkpoints, the unused ones among them, so that this
also is the reference for importing those. Written from the description of the method only.

Shape legend: B clips, T frames, N tokens, D features, R features of a bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the network; the defaults are the published ones."""

    image_px: int = 224
    audio_frames: int = 512
    num_mels: int = 128
    num_frames: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    bottleneck: int = 128
    prompts_per_stage: int = 3
    stage_period: int = 6
    head_dim: int = 512
    head_heads: int = 8
    head_mlp: int = 1024
    num_classes: int = 7
    drop_path: float = 0.1


class Attention(nn.Module):
    """Self-attention with its matrix."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        batch, tokens, dim = x.shape
        head = dim // self.num_heads
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, head).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        attention = (query @ key.transpose(-2, -1) * head**-0.5).softmax(dim=-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, tokens, dim)
        return self.proj(mixed)


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth."""

    def __init__(self, dim: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        x = x + self._dropped(self.attn(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1.0 - self.drop_path
        mask = torch.empty(x.shape[0], 1, 1, device=x.device).bernoulli_(keep)
        return x * mask / keep


class PatchEmbed(nn.Module):
    """Patches by a strided convolution."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=16, stride=16)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, N, D]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """What the picture's and the sound's encoder have in common."""

    def __init__(
        self, sizes: Sizes, channels: int, size: tuple[int, int], unused_classes: int
    ) -> None:
        super().__init__()
        dim, depth, per_stage = sizes.dim, sizes.depth, sizes.prompts_per_stage
        stages = depth // sizes.stage_period
        num_patches = (size[0] // 16) * (size[1] // 16)
        self.per_stage, self.stage_period = per_stage, sizes.stage_period
        self.num_prompts = stages * per_stage
        self.patch_embed = PatchEmbed(channels, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + num_patches + self.num_prompts, dim))
        rates = [sizes.drop_path * i / (depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, sizes.num_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, unused_classes)
        self.learnable_prompts_init = nn.Parameter(torch.randn(self.num_prompts, dim) * dim**-0.5)
        self.learnable_prompts_progr = nn.ParameterList(
            torch.randn(per_stage, dim) * dim**-0.5 for _ in range(stages)
        )
        self.all_gate = nn.ParameterList(torch.zeros(1) for _ in range(depth))
        self.temporal_att_post = nn.ModuleList(
            nn.Sequential(nn.Linear(sizes.bottleneck, dim), nn.GELU()) for _ in range(depth)
        )

    def tokens(self, x: Tensor) -> Tensor:
        """What enters the first block."""
        patches = self.patch_embed(x)
        cls = self.cls_token.expand(len(x), -1, -1)
        prompts = self.learnable_prompts_init.expand(len(x), -1, -1)
        return torch.cat([cls, patches, prompts], dim=1) + self.pos_embed

    def add_progressive(self, x: Tensor, block: int) -> Tensor:
        """Adds a stage's offset to its prompts after its first block."""
        if block % self.stage_period:
            return x
        stage = block // self.stage_period
        first = x.shape[1] - self.num_prompts + stage * self.per_stage
        last = first + self.per_stage
        changed = x[:, first:last] + self.learnable_prompts_progr[stage]
        return torch.cat([x[:, :first], changed, x[:, last:]], dim=1)


class ImageEncoder(Encoder):
    """The picture's encoder; it also holds both ways down into the bottlenecks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes, 3, (sizes.image_px, sizes.image_px), 12)
        dim, width, depth = sizes.dim, sizes.bottleneck, sizes.depth
        self.temporal_pre = nn.ModuleList(nn.Linear(dim, width) for _ in range(depth))
        self.temporal_pre_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.audio_proj_pre = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width)) for _ in range(depth)
        )


class TemporalAttention(nn.Module):
    """Attention with separate queries and keys and values, without biases."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.head_dim
        self.num_heads = sizes.head_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        batch, tokens, dim = x.shape
        head = dim // self.num_heads
        key, value = self.to_kv(x).chunk(2, dim=-1)
        query, key, value = (
            part.reshape(batch, tokens, self.num_heads, head).transpose(1, 2)
            for part in (self.to_q(x), key, value)
        )
        attention = (query @ key.transpose(-2, -1) * head**-0.5).softmax(dim=-1)
        return self.to_out((attention @ value).transpose(1, 2).reshape(batch, tokens, dim))


class TemporalMlp(nn.Module):
    """Two layers with a tanh-approximated GELU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(sizes.head_dim, sizes.head_mlp),
            nn.GELU(approximate="tanh"),
            nn.Identity(),
            nn.Linear(sizes.head_mlp, sizes.head_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.net(x)


class PreNorm(nn.Module):
    """A norm before a layer, and a second one that is never used."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """A layer's output added to its input."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        return x + self.fn(x)


class TemporalTransformer(nn.Module):
    """One block over class token and frames."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.head_dim
        layers: Sequence[nn.Module] = (TemporalAttention(sizes), TemporalMlp(sizes))
        self.layers = nn.ModuleList(
            [nn.ModuleList(Residual(PreNorm(dim, layer)) for layer in layers)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        for pair in self.layers:
            attention, mlp = cast(nn.ModuleList, pair)
            x = mlp(attention(x))
        return x


class TemporalNet(nn.Module):
    """The multimodal temporal transformer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, sizes.head_dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, 1 + sizes.num_frames, sizes.head_dim))
        self.temporal_transformer = TemporalTransformer(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Frames [B, T, D] to the class token [B, D]."""
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        return self.temporal_transformer(x)[:, 0]


class LiteralMmaDfer(nn.Module):
    """The whole network; frozen and trained parameters as published."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(sizes)
        self.audio_model = Encoder(sizes, 1, (sizes.audio_frames, sizes.num_mels), 1000)
        self.vision_proj = nn.Linear(sizes.dim, sizes.head_dim)
        self.temporal_net = TemporalNet(sizes)
        self.our_classifier = nn.Linear(sizes.head_dim, sizes.num_classes)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not _is_frozen(name))

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Logits [B, K] of video [B, T, 3, H, W] in [0, 1] and normalised log-mel [B, F, M]."""
        batch, frames = video.shape[:2]
        seen, heard = self.image_encoder, self.audio_model
        x_v = seen.tokens(video.flatten(0, 1))
        x_a = heard.tokens(audio[:, None])
        for i in range(len(seen.blocks)):
            x_a = heard.blocks[i](x_a)
            x_v = seen.blocks[i](x_v)
            x_v, x_a = self._exchange(i, x_v, x_a, batch, frames)
            x_v = seen.add_progressive(x_v, i)
            x_a = heard.add_progressive(x_a, i)
        cls_v = seen.norm(x_v)[:, 0].reshape(batch, frames, -1)
        cls_a = heard.norm(x_a)[:, 0][:, None]
        return self.our_classifier(self.temporal_net(self.vision_proj(cls_v + cls_a)))

    def _exchange(
        self, i: int, x_v: Tensor, x_a: Tensor, batch: int, frames: int
    ) -> tuple[Tensor, Tensor]:
        seen, heard = self.image_encoder, self.audio_model
        z_v = seen.temporal_pre_norm[i](seen.temporal_pre[i](x_v))
        z_a = seen.audio_proj_pre[i](x_a)
        c_v = z_v.reshape(batch, frames * z_v.shape[1], -1).mean(dim=1)
        c_a = z_a.mean(dim=1)
        z_v = z_v + c_a.repeat_interleave(frames, dim=0)[:, None]
        z_a = z_a + c_v[:, None]
        x_v = x_v + torch.tanh(seen.all_gate[i]) * seen.temporal_att_post[i](z_v)
        x_a = x_a + torch.tanh(heard.all_gate[i]) * heard.temporal_att_post[i](z_a)
        return x_v, x_a


def _is_frozen(name: str) -> bool:
    if not name.startswith(("image_encoder.", "audio_model.")):
        return False
    part = name.split(".")[1]
    return part in ("cls_token", "patch_embed", "blocks", "norm", "head")
