"""What makes features of single frames, and of a clip from those of its frames.

Shape legend: B clips, T frames, N pictures (clips x frames), C channels, H W pixels, D features.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from mien_models.contract import PictureLayer


class ConvTrunk(nn.Module):
    """Convolutions, each with a norm; every stage halves the side. [N, C, H, W] to [N, D].

    Args:
        in_channels: C.
        widths: channels of the stages.
        grid: features are read from so many places by as many.
        dim: D.
        norm: makes the norm of so many channels.
        last: what the features go through in the end; None: a ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        widths: Sequence[int],
        grid: int,
        dim: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        last: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_features = dim
        stages: list[nn.Module] = []
        channels = in_channels
        for width in widths:
            stages += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                norm(width),
                nn.ReLU(),
            ]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.places = nn.AdaptiveAvgPool2d(grid)
        self.project = nn.Linear(channels * grid**2, dim)
        self.last = last or nn.ReLU()

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Features [N, D]."""
        features_ND: Tensor = self.project(self.places(self.stages(frames_NCHW)).flatten(1))
        return self.last(features_ND)  # type: ignore[no-any-return]


def timm_trunk(name: str, side_px: int, *, pooling: str = "") -> nn.Module:
    """An untrained network of timm without its classifier, for pictures of this side.

    Args:
        name: timm's.
        side_px: of the square pictures.
        pooling: timm's ``global_pool`` (``avg``, ``max``); empty: the model's own.

    Raises:
        ValueError: timm has no model of this name.
    """
    # Imported late: timm's registry takes seconds, and listing methods does not need it.
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ", such as resnet50"
        raise ValueError(f"trunk.name={name!r} is neither `conv` nor a model of timm{hint}")
    # Vision transformers are built for one size; convolutions take any.
    is_fixed = timm.get_pretrained_cfg(name).fixed_input_size
    options: dict[str, int | str] = {"img_size": side_px} if is_fixed else {}
    if pooling:
        options["global_pool"] = pooling
    trunk: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return trunk


def picture_layer(trunk: Any, *, border_px: int) -> PictureLayer:
    """The last layer of one of these trunks that knows places.

    Raises:
        ValueError: a network of timm that does not say which layer that is.
    """
    stages = getattr(trunk, "stages", None)
    if isinstance(trunk, ConvTrunk) or not hasattr(trunk, "feature_info"):
        return PictureLayer(layer=stages or trunk, border_px=border_px)
    layer = trunk.get_submodule(_last_place(trunk))
    if not hasattr(trunk, "patch_embed"):
        return PictureLayer(layer=layer, border_px=border_px)
    return PictureLayer(
        layer=layer,
        token_grid=cast(Any, trunk.patch_embed).grid_size,
        first_patch=getattr(trunk, "num_prefix_tokens", 0),
        border_px=border_px,
    )


def _last_place(trunk: nn.Module) -> str:
    """timm's name of the last layer that gives a map or tokens."""
    places: list[dict[str, str]] = list(trunk.feature_info)  # type: ignore[arg-type]
    if not places:
        raise ValueError(f"{type(trunk).__name__} of timm does not name its feature maps")
    return places[-1]["module"]


def mean_of_faces(values_BT: Tensor, has_face_BT: Tensor) -> Tensor:
    """Mean over the frames with a face, of any values [B, T, ...]; 0 where there is none."""
    weight_BT = has_face_BT.to(values_BT.dtype)
    weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (values_BT * weight_BT.reshape(*weight_BT.shape, *[1] * (values_BT.ndim - 2))).sum(dim=1)
