"""What moved a decision of MMA-DFER: the modality, the frames, the place in the picture.

Shape legend: B clips, T frames, N tokens, D features, A heads, R C rows and columns of patches,
L blocks with an exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien_models.contract import ClipBatch, without_audio, without_video
from mien_models.explain.heat import heat_maps, without_effect
from mien_models.mma_dfer.method import MmaDfer
from mien_models.mma_dfer.model import MmaDferNetwork, TemporalBlock


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What the network's decisions about a batch rest on."""

    class_B: Tensor
    """int64 [B]: the class that is explained, the most probable one unless another was asked."""
    audio_effect_B: Tensor
    """[B]: by how much the log-probability of that class falls when the sound is taken away."""
    video_effect_B: Tensor
    """[B]: the same for the picture."""
    exchange_LM: Tensor
    """[L, 2]: size of what the exchange after each fused block adds to video and audio tokens, as
    a share of those tokens' own size."""
    frame_share_BT: Tensor
    """[B, T]: attention of the temporal class token on each frame, sums to 1."""
    attention_BTRC: Tensor
    """[B, T, R, C]: attention of each frame's class token in the last block, sums to 1."""
    heat_BTRC: Tensor
    """[B, T, R, C]: Grad-CAM of the last block's patches, at least 0, at most 1 within a clip."""


def explain(method: MmaDfer, batch: ClipBatch, class_B: Tensor | None = None) -> Readout:
    """Explains the predictions of a batch, in evaluation mode.

    A modality is taken away as in :meth:`MmaDfer.predict`: by its learned stand-in,
    or as silence and black frames in a network that learnt none.

    Raises:
        ValueError: a network without temporal transformer, whose frames all count the same.
    """
    network = method.network
    if not len(network.head.blocks):
        raise ValueError("temporal.depth=0: there is no attention over frames to read")
    last: Any = network.video_encoder.blocks[-1]
    temporal = cast(TemporalBlock, network.head.blocks[-1])
    method.eval()
    seen: dict[str, Any] = {}
    with torch.no_grad(), _hooks(network, seen):
        logits_BK = method.predict(batch).logits_BK
    class_B = logits_BK.argmax(dim=1) if class_B is None else class_B
    frames = batch.video_BTCHW.shape[1]
    rows, columns = network.video_encoder.grid.shape

    def as_grid(values_XN: Tensor) -> Tensor:
        grid: Tensor = values_XN.unflatten(1, (rows, columns)).unflatten(0, (-1, frames))
        return grid.detach()

    patches = slice(1, 1 + rows * columns)
    return Readout(
        class_B=class_B,
        audio_effect_B=without_effect(method, batch, class_B, without_audio),
        video_effect_B=without_effect(method, batch, class_B, without_video),
        exchange_LM=torch.tensor([seen["exchange"][index] for index in sorted(seen["exchange"])]),
        frame_share_BT=_frame_share(temporal, seen["temporal"]),
        attention_BTRC=as_grid(_cls_attention(last.attn, seen["normed"])[:, patches]),
        heat_BTRC=heat_maps(method, batch, class_B).heat_BSRC,
    )


@contextmanager
def _hooks(network: MmaDferNetwork, seen: dict[str, Any]) -> Iterator[None]:
    """Notes what enters and leaves the layers that are read, for one forward pass."""
    seen["exchange"] = {}

    def keep_input(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0].detach()

        return hook

    def keep_sizes(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, inputs: Any, outputs: Any) -> None:
            pairs = zip(inputs[:2], outputs, strict=True)
            seen["exchange"][index] = [_relative_change(old, new) for old, new in pairs]

        return hook

    last: Any = network.video_encoder.blocks[-1]
    handles = [
        last.attn.register_forward_pre_hook(keep_input("normed")),
        network.head.blocks[-1].register_forward_pre_hook(keep_input("temporal")),
    ]
    for index, exchange in network.exchanges.items():
        handles.append(exchange.register_forward_hook(keep_sizes(int(index))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _relative_change(old: Tensor, new: Tensor) -> float:
    return float((new - old).detach().norm() / old.detach().norm().clamp(min=1e-12))


def _cls_attention(attention: Any, normed_XND: Tensor) -> Tensor:
    """Mean over heads of the class token's attention, [X, N]; of a timm ``Attention``."""
    qkv = attention.qkv(normed_XND).unflatten(2, (3, attention.num_heads, -1))
    query_XAD, key_XNAD = qkv[:, 0, 0], qkv[:, :, 1]
    scores_XAN = torch.einsum("xad,xnad->xan", query_XAD, key_XNAD) * attention.scale
    mean_XN: Tensor = scores_XAN.softmax(dim=2).mean(dim=1).detach()
    return mean_XN


def _frame_share(block: TemporalBlock, tokens_BND: Tensor) -> Tensor:
    """Attention of the class token on the frames alone, mean over heads."""
    normed = block.attention_norm(tokens_BND)
    query = block.query(normed[:, 0]).unflatten(-1, (block.num_heads, -1))
    key = block.key_value(normed).chunk(2, dim=-1)[0].unflatten(-1, (block.num_heads, -1))
    scores_BAN = torch.einsum("bad,bnad->ban", query, key) * query.shape[-1] ** -0.5
    frames_BT = scores_BAN.softmax(dim=2).mean(dim=1)[:, 1:]
    share_BT: Tensor = (frames_BT / frames_BT.sum(dim=1, keepdim=True)).detach()
    return share_BT
