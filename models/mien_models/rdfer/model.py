"""DSHN, the dual-stream hierarchical network, with KER between its streams.

::

    video [B, T, C, H, W] -S evenly spread frames-> synopsis stream -> logits, clip feature
              |                                          |                   |
              |                       key positions [B, J, U] (KER)     channel gate
              |                                          |                   |
              +--------------- J keys of U frames -> detail stream <---------+
                                                         |
                                          logits of the prediction

Shape legend: B clips, T loaded frames, C channels, H W pixels, S instances of the synopsis, J keys,
U frames of a key, L features behind the LSTM, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mien_models.layers.clip_random import clip_uniform
from mien_models.rdfer import keys
from mien_models.rdfer.config import RdferConfig
from mien_models.rdfer.streams import ExpressionStream, ShortTermMovement, StreamOutput

_JITTER, _SYNOPSIS_DROPOUT, _DETAIL_DROPOUT = range(3)
"""Streams of ``clip_uniform``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyMoments:
    """Where KER looks."""

    positions_BJU: Tensor
    """Of every frame of every key, in [0, T - 1]."""
    centres_BJ: Tensor
    """Ascending; with gradient where they are learned."""
    rule_centres_BJ: Tensor | None
    """What learned keys are pulled to; None where nothing pulls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkOutput:
    """What the network says about a batch of clips."""

    final: StreamOutput
    """The detail stream's, or the synopsis' where it is alone."""
    synopsis: StreamOutput | None
    """Where there is one beside the final one."""
    moments: KeyMoments | None
    """None where no frames are sampled again."""


class RdferNetwork(nn.Module):
    """The whole network; see the drawing on top of this file."""

    def __init__(self, config: RdferConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.synopsis: ExpressionStream | None = None
        self.detail: ExpressionStream | None = None
        self.channel_gate: nn.Linear | None = None
        self.learned_keys: keys.LearnedKeys | None = None
        if config.has_synopsis:
            self.synopsis = self._stream(config.synopsis_frames, num_classes, _SYNOPSIS_DROPOUT)
        if config.has_detail:
            self.detail = self._stream(config.num_keys, num_classes, _DETAIL_DROPOUT)
        if config.has_synopsis and config.has_detail:
            width = config.long_term.width
            if config.channel_gate:
                self.channel_gate = nn.Linear(width, width)
            if config.streams == "both" and config.keys.placement == "learned":
                self.learned_keys = keys.LearnedKeys(width, config.keys, config.num_frames)

    def _stream(self, num_instances: int, num_classes: int, dropout: int) -> ExpressionStream:
        config = self.config
        return ExpressionStream(
            ShortTermMovement(
                config.trunk, config.input_channels, config.keys.frames, random_stream=dropout
            ),
            config.long_term,
            num_instances=num_instances,
            num_classes=num_classes,
        )

    def forward(
        self,
        video_BTCHW: Tensor,
        seed_B: Tensor | None = None,
        jitter_BS: Tensor | None = None,
    ) -> NetworkOutput:
        """Both streams' answers.

        Args:
            video_BTCHW: scaled pixels of all loaded frames.
            seed_B: int64, of each clip; draws jitter and dropout in training.
            jitter_BS: in [0, 1), moves the synopsis' frames; None: drawn in training, else none.
        """
        if self.training and jitter_BS is None:
            assert seed_B is not None
            jitter_BS = clip_uniform(seed_B, self.config.synopsis_frames, _JITTER)
        if self.synopsis is None:
            moments = self._moments(video_BTCHW, None, None)
            final = self._at_keys(video_BTCHW, moments, seed_B, None)
            return NetworkOutput(final=final, synopsis=None, moments=moments)
        positions_BS = keys.synopsis_positions(
            video_BTCHW.shape[1], self.config.synopsis_frames, jitter_BS
        )
        positions_BS = positions_BS.to(video_BTCHW.device).expand(video_BTCHW.shape[0], -1)
        frames_BS1CHW = keys.sample_hard(video_BTCHW, positions_BS[..., None])
        synopsis = self.synopsis(frames_BS1CHW, seed_B)
        if self.detail is None:
            return NetworkOutput(final=synopsis, synopsis=None, moments=None)
        gate_BL = None
        if self.channel_gate is not None:
            gate_BL = torch.sigmoid(self.channel_gate(synopsis.clip_BL))
        if self.config.streams == "same_input":
            frames_BJUCHW = frames_BS1CHW.squeeze(2).unflatten(1, (-1, self.config.keys.frames))
            final = self.detail(frames_BJUCHW, seed_B, gate_BL)
            return NetworkOutput(final=final, synopsis=synopsis, moments=None)
        moments = self._moments(video_BTCHW, synopsis, positions_BS)
        final = self._at_keys(video_BTCHW, moments, seed_B, gate_BL)
        return NetworkOutput(final=final, synopsis=synopsis, moments=moments)

    def _at_keys(
        self,
        video_BTCHW: Tensor,
        moments: KeyMoments,
        seed_B: Tensor | None,
        gate_BL: Tensor | None,
    ) -> StreamOutput:
        assert self.detail is not None
        if self.config.keys.kernel == "gaussian":
            sigma = self.config.keys.sigma_frames
            frames = keys.sample_gaussian(video_BTCHW, moments.positions_BJU, sigma)
        else:
            frames = keys.sample_hard(video_BTCHW, moments.positions_BJU)
        output: StreamOutput = self.detail(frames, seed_B, gate_BL)
        return output

    def _moments(
        self, video_BTCHW: Tensor, synopsis: StreamOutput | None, positions_BS: Tensor | None
    ) -> KeyMoments:
        settings, num_frames = self.config.keys, video_BTCHW.shape[1]
        stride: float | Tensor = settings.stride_frames
        rule_BJ = None
        if synopsis is not None and positions_BS is not None and self._asks_the_rule:
            rule_BJ = self._rule_centres(synopsis, positions_BS)
        if self.learned_keys is not None:
            assert synopsis is not None
            centres_BJ, stride = self.learned_keys(synopsis.clip_BL)
        elif rule_BJ is not None:
            centres_BJ, rule_BJ = rule_BJ, None
        else:
            even = keys.even_centres(num_frames, settings.count)
            centres_BJ = torch.tensor([even], device=video_BTCHW.device).clamp(min=0.0)
            centres_BJ = centres_BJ.expand(video_BTCHW.shape[0], -1)
        centres_BJ = keys.spread(centres_BJ, num_frames, settings.min_gap_frames)
        positions_BJU = keys.frame_positions(centres_BJ, stride, settings.frames, num_frames - 1)
        return KeyMoments(
            positions_BJU=positions_BJU, centres_BJ=centres_BJ, rule_centres_BJ=rule_BJ
        )

    @property
    def _asks_the_rule(self) -> bool:
        settings = self.config.keys
        return settings.placement == "rule" or settings.target_weight > 0

    def _rule_centres(self, synopsis: StreamOutput, positions_BS: Tensor) -> Tensor:
        """Key positions [B, J] by rule, without gradient."""
        settings = self.config.keys
        instances_BJ = keys.pick_instances(
            synopsis.instance_logits_BIK.detach().float().softmax(dim=2),
            settings.count,
            settings.rule,
            keys.gap_in_instances(settings, self.config.num_frames, positions_BS.shape[1]),
        )
        return positions_BS.gather(1, instances_BJ).float()
