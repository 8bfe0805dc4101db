"""The network: a trunk on every frame, the mean over a clip's faces, a head that grows.

Shape legend: B clips, T frames, C channels, H W pixels, D features, S classes learnt so far,
E basic expressions, N new classes or clips of one class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.complex_fer.compounds import components_of
from mien_models.complex_fer.config import ComplexFerConfig, HeadConfig
from mien_models.layers.face_trunk import ConvTrunk, mean_of_faces, timm_trunk
from mien_models.layers.merged_batch_norm import merge_batch_norms
from mien_models.layers.pixel_input import PixelInput
from mien_models.layers.pretrained import load_trunk

NOT_LEARNT = -1e4
"""The logit of a class that nothing is known of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the network says about a batch of clips."""

    logits_BS: Tensor
    """In the order in which classes were learnt."""
    features_BD: Tensor
    emotions_BE: Tensor | None = None
    """Scores of the basic expressions, of a head that keeps such."""


class ClassRows(nn.Module):
    """The weights of classes that came together: [B, D] to [B, N]."""

    def __init__(self, dim: int, names: Sequence[str], *, with_bias: bool) -> None:
        super().__init__()
        self.names = tuple(names)
        limit = math.sqrt(6.0 / (dim + len(names)))
        self.weight = nn.Parameter(torch.empty(len(names), dim).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(len(names))) if with_bias else None


class GrowingHead(nn.Module):
    """A row of weights a class; every stage adds a block of its own.

    Blocks are multiplied one by one, so the logits of old classes keep their bits when a block is
    added.

    Args:
        config: kind and start.
        dim: D.
    """

    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        self.blocks = nn.ModuleList()

    @property
    def names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return tuple(name for block in self._blocks() for name in block.names)

    def _blocks(self) -> list[ClassRows]:
        return [block for block in self.blocks if isinstance(block, ClassRows)]

    def grow(self, names: Sequence[str]) -> None:
        """Adds rows for new classes."""
        block = ClassRows(self.dim, names, with_bias=self.config.kind == "linear")
        if self.config.start == "compositional":
            self._start_as_parts(block)
        self.blocks.append(block)

    @torch.no_grad()
    def _start_as_parts(self, block: ClassRows) -> None:
        rows = {name: row for old in self._blocks() for name, row in _rows_of(old).items()}
        for place, name in enumerate(block.names):
            parts = components_of(name)
            if len(parts) < 2 or any(part not in rows for part in parts):
                continue
            weight, bias = zip(*(rows[part] for part in parts), strict=True)
            block.weight[place] = torch.stack(weight).mean(dim=0)
            if block.bias is not None:
                block.bias[place] = torch.stack(bias).mean()

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, S]; there are no scores of basic expressions."""
        if self.config.kind == "linear":
            parts = [F.linear(features_BD, block.weight, block.bias) for block in self._blocks()]
        else:
            unit_BD = F.normalize(features_BD, dim=1)
            scale = self.config.cosine_scale
            parts = [
                scale * F.linear(unit_BD, F.normalize(block.weight, dim=1))
                for block in self._blocks()
            ]
        return torch.cat(parts, dim=1), None


def _rows_of(block: ClassRows) -> dict[str, tuple[Tensor, Tensor]]:
    bias_N = torch.zeros(len(block.names)) if block.bias is None else block.bias
    return {
        name: (block.weight[place], bias_N[place].to(block.weight.device))
        for place, name in enumerate(block.names)
    }


class MultiLabelHead(nn.Module):
    """A score for every basic expression; a class's logit is the sum of its parts' scores.

    That is the log-likelihood of exactly these parts showing, up to a term that all classes share.

    Args:
        dim: D.
        classes: all that will ever be learnt.

    Raises:
        ValueError: two classes are made of the same parts, so that this head can't tell them apart.
    """

    def __init__(self, dim: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.parts = {name: frozenset(components_of(name)) - {"neutral"} for name in classes}
        _refuse_twins(self.parts)
        self.emotions = sorted(set().union(*self.parts.values()))
        self.scores = nn.Linear(dim, len(self.emotions))
        self.names: tuple[str, ...] = ()
        self.register_buffer("parts_SE", torch.zeros(0, len(self.emotions)), persistent=False)

    parts_SE: Tensor
    """1 where a learnt class is made of an expression."""

    def grow(self, names: Sequence[str]) -> None:
        """Lets classes take part in the logits."""
        self.names += tuple(names)
        rows = [[float(e in self.parts[name]) for e in self.emotions] for name in self.names]
        self.parts_SE = torch.tensor(rows, device=self.parts_SE.device)

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, S] and scores [B, E]."""
        scores_BE = self.scores(features_BD)
        return scores_BE @ self.parts_SE.T, scores_BE


def _refuse_twins(parts: Mapping[str, frozenset[str]]) -> None:
    seen: dict[frozenset[str], str] = {}
    for name, made_of in parts.items():
        if made_of in seen:
            raise ValueError(
                f"head.kind=multi_label can't tell {name!r} from {seen[made_of]!r}: both are made "
                f"of {' and '.join(sorted(made_of)) or 'nothing'}; use head.kind=linear, or leave "
                "one out with classes.left_out"
            )
        seen[made_of] = name


class NearestMean(nn.Module):
    """iCaRL's answer: the class whose remembered clips lie nearest, features being of length 1.

    Rebuffi et al., CVPR 2017, algorithm 1. Means being of length 1 too, the nearest is the one with
    the largest cosine.

    Args:
        dim: D.
        scale: logits are so many times the cosine.
    """

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("means_SD", torch.zeros(0, dim))

    means_SD: Tensor
    """Of length 1; 0 where a class has no remembered clip."""

    def grow(self, num_classes: int) -> None:
        """Makes room for new classes."""
        self.means_SD = F.pad(self.means_SD, (0, 0, 0, num_classes))

    def fill(self, place: int, features_ND: Tensor) -> None:
        """Takes the mean of a class's remembered clips."""
        mean_D = F.normalize(features_ND.double(), dim=1).mean(dim=0)
        self.means_SD[place] = F.normalize(mean_D, dim=0).to(self.means_SD)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits [B, S]; ``NOT_LEARNT`` of a class without remembered clips."""
        unit_BD = F.normalize(features_BD.float(), dim=1)
        logits_BS = self.scale * F.linear(unit_BD, self.means_SD)
        return logits_BS.masked_fill((self.means_SD == 0).all(dim=1), NOT_LEARNT)


class CompoundNetwork(nn.Module):
    """Clips to logits of the classes learnt so far.

    Args:
        config: sizes.
        classes: all that will ever be learnt; none is yet.

    Raises:
        ValueError: timm has no model of the trunk's name, or the head can't hold these classes.
    """

    def __init__(self, config: ComplexFerConfig, classes: Sequence[str]) -> None:
        super().__init__()
        self.trunk_name = config.trunk.name
        channels = 3 if config.motion_gain is None else 6
        self.pixels = PixelInput(
            config.input_scale, border_px=config.border_px, motion_gain=config.motion_gain
        )
        self.trunk = _build_trunk(config, channels)
        merge_batch_norms(self.trunk)
        dim = int(self.trunk.num_features)  # type: ignore[arg-type]
        layers: list[nn.Module] = []
        for width in config.head.hidden:
            activation = nn.ReLU() if config.head.activation == "relu" else nn.Sigmoid()
            layers += [nn.Dropout(config.head.dropout), nn.Linear(dim, width), activation]
            dim = width
        self.body = nn.Sequential(*layers)
        self.feature_dim = dim
        self.dropout = nn.Dropout(config.head.dropout)
        self.head: GrowingHead | MultiLabelHead = (
            MultiLabelHead(dim, classes)
            if config.head.kind == "multi_label"
            else GrowingHead(config.head, dim)
        )

    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Reading:
        """Reads clips.

        Args:
            video_BTCHW: uint8 [B, T, 3, H, W].
            has_face_BT: bool [B, T]; frames without a face don't count.
        """
        frames_BTCHW = self.pixels(video_BTCHW, has_face_BT)
        num_frames = frames_BTCHW.shape[1]
        features_BTD = self.trunk(frames_BTCHW.flatten(0, 1)).unflatten(0, (-1, num_frames))
        features_BD = self.body(mean_of_faces(features_BTD, has_face_BT))
        logits_BS, emotions_BE = self.head(self.dropout(features_BD))
        return Reading(logits_BS=logits_BS, features_BD=features_BD, emotions_BE=emotions_BE)

    def load_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights under timm's names into the trunk; its own classifier is left out.

        Raises:
            WeightsMismatchError: lists what does not fit.
        """
        load_trunk(self.trunk, tensors, self.trunk_name)


def _build_trunk(config: ComplexFerConfig, channels: int) -> nn.Module:
    trunk = config.trunk
    if trunk.name == "conv":
        return ConvTrunk(channels, widths=trunk.widths, grid=trunk.grid, dim=trunk.dim)
    side = config.image_size_px - 2 * config.border_px
    return timm_trunk(trunk.name, side, pooling=trunk.pooling)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms of a network, of every kind."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
