"""CIR: a frame rebuilt from other people's keys (cross-identity reconstruction).

Shape legend: B clips, T frames, M = B * T frames, N keys of the dictionary, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.clp.config import ReconstructionConfig


def attend(
    query_ME: Tensor,
    keys_NE: Tensor,
    allowed_MN: Tensor,
    *,
    temperature: float,
    top_k: int | None = None,
) -> Tensor:
    """Attention of frames to the keys that they may use: rows sum to 1.

    Args:
        query_ME: unit vectors.
        keys_NE: unit vectors.
        allowed_MN: bool; what is not allowed gets exactly 0. A row without any is all 0.
        temperature: divides the cosines.
        top_k: only so many of the most similar allowed keys take part; None: all.
    """
    similarity_MN = (query_ME @ keys_NE.T / temperature).masked_fill(~allowed_MN, -torch.inf)
    if top_k is not None and top_k < similarity_MN.shape[1]:
        chosen_MK = similarity_MN.detach().topk(top_k, dim=1).indices
        is_left_out_MN = torch.ones_like(allowed_MN).scatter(1, chosen_MK, False)
        similarity_MN = similarity_MN.masked_fill(is_left_out_MN, -torch.inf)
    has_keys_M1 = allowed_MN.any(dim=1, keepdim=True)
    attention_MN = similarity_MN.masked_fill(~has_keys_M1, 0.0).softmax(dim=1)
    return attention_MN * has_keys_M1


def rebuild(attention_MN: Tensor, keys_NE: Tensor) -> Tensor:
    """The weighted mean of the keys, of unit length, [M, E]; 0 where nothing is attended to."""
    return F.normalize(attention_MN @ keys_NE, dim=1)


def relative_entropy(attention_MN: Tensor, allowed_MN: Tensor, top_k: int | None) -> Tensor:
    """[M] in [0, 1]: entropy of the attention as a share of the highest possible one; 1: even.

    Rows that may use one key at most are 0.
    """
    number_M = allowed_MN.sum(dim=1).clamp(max=top_k or allowed_MN.shape[1])
    entropy_M = torch.special.entr(attention_MN).sum(dim=1)
    return torch.where(number_M > 1, entropy_M / number_M.clamp(min=2).log(), 0.0)


def reconstruction_loss(
    rebuilt_BTE: Tensor, key_BTE: Tensor, usable_BT: Tensor, c: ReconstructionConfig
) -> Tensor:
    """One loss a clip, [B]: the mean over its usable frames; 0 where there is none.

    ``cycle``: cross-entropy of the frame's own key among the keys of all usable frames of its clip.
    ``l2``: squared distance to the own key.
    """
    weight_BT = usable_BT.float()
    if c.form == "l2":
        lost_BT = (rebuilt_BTE - key_BTE).square().sum(dim=2)
    else:
        similarity_BTT = rebuilt_BTE @ key_BTE.transpose(1, 2) / c.temperature
        itself = torch.eye(usable_BT.shape[1], dtype=torch.bool, device=usable_BT.device)
        # An unusable frame's own key stays, so that its row, which doesn't count, is finite.
        rivals_BTT = similarity_BTT.masked_fill(~(usable_BT[:, None, :] | itself), -torch.inf)
        own_BT = similarity_BTT.diagonal(dim1=1, dim2=2)
        lost_BT = rivals_BTT.logsumexp(dim=2) - own_BT
    return (lost_BT * weight_BT).sum(dim=1) / weight_BT.sum(dim=1).clamp(min=1.0)


def instance_loss(
    query_BTE: Tensor,
    key_BTE: Tensor,
    usable_BT: Tensor,
    keys_NE: Tensor,
    filled_N: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """MoCo's loss, one a clip, [B]: each frame finds its own key among the whole dictionary."""
    own_BT = (query_BTE * key_BTE).sum(dim=2) / temperature
    others_BTN = (query_BTE @ keys_NE.T / temperature).masked_fill(~filled_N, -torch.inf)
    lost_BT = torch.cat([own_BT[..., None], others_BTN], dim=2).logsumexp(dim=2) - own_BT
    weight_BT = usable_BT.float()
    return (lost_BT * weight_BT).sum(dim=1) / weight_BT.sum(dim=1).clamp(min=1.0)
