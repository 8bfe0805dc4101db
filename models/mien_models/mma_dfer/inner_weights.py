"""What MMA-DFER shows of its own weighing: attention over frames and places, and its gates.

Shape legend: B clips, T frames, X their product, N tokens, D features, A heads, R C rows and
columns of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien_models.contract import InnerWeights
from mien_models.mma_dfer.model import MmaDferNetwork, TemporalBlock


@torch.no_grad()
def read_inner_weights(network: MmaDferNetwork, run: Callable[[], object]) -> InnerWeights:
    """Reads a forward pass.

    Frames weigh by the attention of the temporal class token (last block), places by that of each
    frame's class token (last block of the video encoder), both as means over heads.
    ``exchange_LL_video`` and ``_audio`` say how large what passes the gate behind block LL is,
    against the tokens that it is added to: 0 where nothing is exchanged.

    Args:
        network: in evaluation mode.
        run: runs it on a batch.
    """
    seen: dict[str, Any] = {"exchanges": {}}
    with _hooks(network, seen):
        run()
    attention: Any = network.video_encoder.blocks[-1].attn
    grid = network.video_encoder.grid.shape
    patches_XP = _cls_attention(attention, seen["normed"])[:, 1 : 1 + grid[0] * grid[1]]
    figures = {
        f"exchange_{block:02d}_{side}": change_B
        for block, changes in sorted(seen["exchanges"].items())
        for side, change_B in zip(("video", "audio"), changes, strict=True)
    }
    share_BT = None
    if "temporal" in seen:
        share_BT = _frame_share(cast(TemporalBlock, network.head.blocks[-1]), seen["temporal"])
    attention_XRC = patches_XP.unflatten(1, grid)
    return InnerWeights(
        frame_share_BT=share_BT,
        attention_BTRC=attention_XRC.unflatten(0, seen["frames"].shape[:2]),
        figures=figures,
    )


@contextmanager
def _hooks(network: MmaDferNetwork, seen: dict[str, Any]) -> Iterator[None]:
    """Notes what enters and leaves the layers that are read, for one forward pass."""

    def keep_input(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    def keep_changes(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, inputs: Any, outputs: Any) -> None:
            pairs = zip(inputs[:2], outputs, strict=True)
            seen["exchanges"][index] = [_relative_change(old, new) for old, new in pairs]

        return hook

    last: Any = network.video_encoder.blocks[-1]
    handles = [
        last.attn.register_forward_pre_hook(keep_input("normed")),
        network.head.register_forward_pre_hook(keep_input("frames")),
    ]
    if len(network.head.blocks):
        handles.append(network.head.blocks[-1].register_forward_pre_hook(keep_input("temporal")))
    for index, exchange in network.exchanges.items():
        handles.append(exchange.register_forward_hook(keep_changes(int(index))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _relative_change(old: Tensor, new: Tensor) -> Tensor:
    """[B]: size of the change as a share of what was there."""
    change_B = (new - old).flatten(1).norm(dim=1)
    share_B: Tensor = change_B / old.flatten(1).norm(dim=1).clamp(min=1e-12)
    return share_B


def _cls_attention(attention: Any, normed_XND: Tensor) -> Tensor:
    """Mean over heads of the class token's attention, [X, N]; of a timm ``Attention``."""
    qkv = attention.qkv(normed_XND).unflatten(2, (3, attention.num_heads, -1))
    query_XAD, key_XNAD = qkv[:, 0, 0], qkv[:, :, 1]
    scores_XAN = torch.einsum("xad,xnad->xan", query_XAD, key_XNAD) * attention.scale
    mean_XN: Tensor = scores_XAN.softmax(dim=2).mean(dim=1)
    return mean_XN


def _frame_share(block: TemporalBlock, tokens_BND: Tensor) -> Tensor:
    """Attention of the class token on the frames alone, mean over heads."""
    normed = block.attention_norm(tokens_BND)
    query = block.query(normed[:, 0]).unflatten(-1, (block.num_heads, -1))
    key = block.key_value(normed).chunk(2, dim=-1)[0].unflatten(-1, (block.num_heads, -1))
    scores_BAN = torch.einsum("bad,bnad->ban", query, key) * query.shape[-1] ** -0.5
    frames_BT = scores_BAN.softmax(dim=2).mean(dim=1)[:, 1:]
    share_BT: Tensor = frames_BT / frames_BT.sum(dim=1, keepdim=True)
    return share_BT
