"""One stream of the network: short-term movement, long-term change, one answer for the clip.

::

    frames [B, I, U, C, H, W] -> trunk with time shift -> mean over U -> instances [B, I, D]
    instances -> two-way LSTM (-> channel gate) -> self-attention gate -> [B, I, L]
    [B, I, L] -> classifier -> instance logits [B, I, K]
    [B, I, L] -> convolution over the instances -> clip feature [B, L] -> classifier -> [B, K]

The synopsis stream has one frame an instance (U = 1), although its trunk shifts in groups of
several.

Shape legend: B clips, I instances, U frames of an instance, C channels, H W pixels, P pooled
features, D features of a frame, L features behind the LSTM, K classes, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.layers.clip_random import clip_uniform
from mien_models.rdfer.config import LongTermConfig, TrunkConfig
from mien_models.rdfer.trunks import build_trunk


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamOutput:
    """What a stream says about a batch of clips."""

    logits_BK: Tensor
    clip_BL: Tensor
    """The clip feature that the logits are read from."""
    instance_logits_BIK: Tensor


class ShortTermMovement(nn.Module):
    """Features of each frame and its neighbours.

    Args:
        config: the trunk.
        channels: of a frame.
        segment: frames of a group in which the trunk shifts in time.
        random_stream: of ``clip_uniform``, for dropout.
    """

    def __init__(
        self, config: TrunkConfig, channels: int, segment: int, random_stream: int
    ) -> None:
        super().__init__()
        self.pool_side, self.dropout = config.pool_side, config.dropout
        self.random_stream = random_stream
        self.trunk = build_trunk(config, channels, segment)
        num_pooled = int(self.trunk.num_features) * config.pool_side**2  # type: ignore[arg-type]
        self.project = nn.Linear(num_pooled, config.width)
        if config.project_std is not None:
            nn.init.normal_(self.project.weight, std=config.project_std)
            nn.init.zeros_(self.project.bias)

    def forward(self, frames_BNCHW: Tensor, seed_B: Tensor | None) -> Tensor:
        """[B, N, C, H, W] to [B, N, D]; ``seed_B`` is needed in training."""
        maps = self.trunk.forward_features(frames_BNCHW.flatten(0, 1))  # type: ignore[operator]
        pooled_BNP = F.adaptive_avg_pool2d(maps, self.pool_side).flatten(1)
        pooled_BNP = pooled_BNP.unflatten(0, frames_BNCHW.shape[:2])
        if self.training and self.dropout > 0:
            assert seed_B is not None
            pooled_BNP = clip_dropout(pooled_BNP, self.dropout, seed_B, self.random_stream)
        return self.project(pooled_BNP)  # type: ignore[no-any-return]


def clip_dropout(features_BNP: Tensor, share: float, seed_B: Tensor, stream: int) -> Tensor:
    """Dropout whose draw belongs to the clip, not to the worker that it lands on."""
    draws_BN = clip_uniform(seed_B, features_BNP[0].numel(), stream)
    is_kept_BNP = draws_BN.unflatten(1, features_BNP.shape[1:]) >= share
    kept_BNP: Tensor = features_BNP * is_kept_BNP / (1.0 - share)
    return kept_BNP


class AttentionGate(nn.Module):
    """Multiplies each instance by sigmoid(norm(self-attention over all instances))."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, instances_BIL: Tensor) -> Tensor:
        """[B, I, L] to [B, I, L]."""
        parts = self.query_key_value(instances_BIL).chunk(3, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts
        )
        mixed_BIL = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return instances_BIL * torch.sigmoid(self.norm(mixed_BIL))


class TwoWayLstm(nn.LSTM):
    """``nn.LSTM`` in both directions, batch first, that reads its weights where they stand.

    torch's own reads a second list of them, of which ``torch.export`` warns and which a teacher's
    averages would have to be written into.
    """

    def __init__(self, width: int, config: LongTermConfig) -> None:
        super().__init__(
            width,
            config.hidden,
            num_layers=config.layers,
            batch_first=True,
            bidirectional=True,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        nn.Module.__setattr__(self, name, value)

    def forward(self, instances_BID: Tensor) -> Tensor:  # type: ignore[override]
        """[B, I, D] to [B, I, L]; starts from zeros."""
        start = instances_BID.new_zeros(
            2 * self.num_layers, instances_BID.shape[0], self.hidden_size
        )
        weights = [getattr(self, name) for name in self._flat_weights_names]
        changes_BIL: Tensor = torch.lstm(
            instances_BID, (start, start), weights, True, self.num_layers, 0.0, False, True, True
        )[0]
        return changes_BIL


class LongTermChange(nn.Module):
    """The sequence of instances, each in the light of all others."""

    def __init__(self, width: int, config: LongTermConfig) -> None:
        super().__init__()
        self.sequence: nn.Module = nn.Linear(width, config.width)
        if config.layers:
            self.sequence = TwoWayLstm(width, config)
        self.gate = AttentionGate(config.width, config.num_heads) if config.num_heads else None

    def forward(self, instances_BID: Tensor, channel_gate_BL: Tensor | None = None) -> Tensor:
        """[B, I, D] to [B, I, L]; the channel gate multiplies the LSTM's output."""
        changes_BIL: Tensor = self.sequence(instances_BID)
        if channel_gate_BL is not None:
            changes_BIL = changes_BIL * channel_gate_BL[:, None]
        return changes_BIL if self.gate is None else self.gate(changes_BIL)


class ExpressionStream(nn.Module):
    """Short-term movement and long-term change of one stream; see the drawing on top.

    Args:
        short_term: features of frames.
        long_term: features of instances.
        num_instances: I.
        num_classes: K.
    """

    def __init__(
        self,
        short_term: ShortTermMovement,
        long_term: LongTermConfig,
        *,
        num_instances: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.short_term = short_term
        self.long_term = LongTermChange(short_term.project.out_features, long_term)
        self.unite = nn.Conv1d(num_instances, 1, kernel_size=3, padding=1)
        self.classifier = nn.Linear(long_term.width, num_classes)

    def forward(
        self,
        frames_BIUCHW: Tensor,
        seed_B: Tensor | None = None,
        channel_gate_BL: Tensor | None = None,
    ) -> StreamOutput:
        """Logits of clips and instances from the instances' frames."""
        shape = frames_BIUCHW.shape[1:3]
        frames_BND = self.short_term(frames_BIUCHW.flatten(1, 2), seed_B)
        instances_BID = frames_BND.unflatten(1, shape).mean(dim=2)
        changes_BIL = self.long_term(instances_BID, channel_gate_BL)
        clip_BL = self.unite(changes_BIL).squeeze(1)
        return StreamOutput(
            logits_BK=self.classifier(clip_BL),
            clip_BL=clip_BL,
            instance_logits_BIK=self.classifier(changes_BIL),
        )
