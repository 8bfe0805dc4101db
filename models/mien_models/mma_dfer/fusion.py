"""The fusion bottleneck: what the two encoders tell each other after a block.

Shape legend: B clips, T frames, N tokens, D features of an encoder, R features of the bottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.mma_dfer.config import FusionOperator


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """What of a batch is there. None stands for "everything"."""

    audio_B: Tensor | None = None
    """bool [B], clips with sound."""
    face_BT: Tensor | None = None
    """bool [B, T], frames with a face."""
    audio_token_BN: Tensor | None = None
    """bool [B, N], audio tokens that are not padding; class token and prompts are always there."""

    @property
    def attention_mask(self) -> Tensor | None:
        """Who may be attended to by audio tokens, bool [B, 1, 1, N]."""
        tokens_BN = self.audio_token_BN
        return None if tokens_BN is None else tokens_BN[:, None, None, :]


@dataclass(frozen=True, kw_only=True, slots=True)
class Routes:
    """With which weights each side hears the other's tokens; the same for all exchanges."""

    video_hears_BTN: Tensor
    """[B, T or 1, N]: weights over audio tokens for each frame, summing to 1."""
    audio_hears_BNT: Tensor | None
    """[B, N or 1, T]: weights over frames for each audio token; None: audio hears nothing."""
    frame_pool: str
    """What stands for a frame: ``mean`` of its tokens or its ``cls`` token."""


def plan_routes(
    operator: FusionOperator,
    presence: Presence,
    like_BTND: tuple[Tensor, Tensor],
    audio_rows: tuple[int, int],
) -> Routes:
    """Works out who hears what, for a whole batch.

    Args:
        operator: see ``FusionConfig.operator``.
        presence: what of the batch is there.
        like_BTND: video tokens [B, T, N, D] and audio tokens [B, N, D], for sizes and device.
        audio_rows: the audio patches as rows (time) and columns (mels).
    """
    video_BTND, audio_BND = like_BTND
    weight = video_BTND.new_ones((), dtype=torch.float32)
    face_BT = weight.expand(video_BTND.shape[:2])
    token_BN = weight.expand(audio_BND.shape[:2])
    if presence.face_BT is not None:
        face_BT = presence.face_BT.float()
    if presence.audio_token_BN is not None:
        token_BN = presence.audio_token_BN.float()
    all_faces_B1T = _normalise(face_BT[:, None])
    if operator == "per_frame_mean":
        return _aligned_routes(face_BT, token_BN, all_faces_B1T, audio_rows)
    if operator == "cls":
        token_BN = F.pad(token_BN[:, :1], (0, token_BN.shape[1] - 1))
    return Routes(
        video_hears_BTN=_normalise(token_BN[:, None]),
        audio_hears_BNT=None if operator == "one_way" else all_faces_B1T,
        frame_pool="cls" if operator == "cls" else "mean",
    )


def _aligned_routes(
    face_BT: Tensor, token_BN: Tensor, all_faces_B1T: Tensor, audio_rows: tuple[int, int]
) -> Routes:
    """Weights falling linearly with the distance in time, both spans taken as [0, 1]."""
    rows, columns = audio_rows
    last = 1 + rows * columns
    patch_BN = token_BN[:, 1:last]
    frames = face_BT.shape[1]
    num_rows_B11 = patch_BN[:, ::columns].sum(dim=1).clamp(min=1.0)[:, None, None]
    row_N = torch.arange(rows, device=face_BT.device).repeat_interleave(columns)
    patch_time_B1N = (row_N + 0.5) / num_rows_B11
    frame_time_T1 = ((torch.arange(frames, device=face_BT.device) + 0.5) / frames)[:, None]
    # No narrower than one step of the coarser side, so that nobody is left without a neighbour.
    reach_B11 = (1.0 / num_rows_B11).clamp(min=1.0 / frames)
    near_BTN = (1.0 - (patch_time_B1N - frame_time_T1).abs() / reach_B11).clamp(min=0.0)
    heard_BTN = F.pad(_normalise(near_BTN * patch_BN[:, None]), (1, token_BN.shape[1] - last))
    seen_BNT = near_BTN.transpose(1, 2) * face_BT[:, None]
    lonely_BN1 = seen_BNT.sum(dim=2, keepdim=True) <= 0
    seen_BNT = torch.where(lonely_BN1, all_faces_B1T, _normalise(seen_BNT))
    others_BNT = all_faces_B1T.expand(-1, token_BN.shape[1], -1)
    seen_BNT = torch.cat([others_BNT[:, :1], seen_BNT, others_BNT[:, last:]], dim=1)
    return Routes(video_hears_BTN=heard_BTN, audio_hears_BNT=seen_BNT, frame_pool="mean")


def _normalise(weight: Tensor) -> Tensor:
    """Makes the last axis sum to 1 (or leaves it 0)."""
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)


class Exchange(nn.Module):
    """One fusion bottleneck (both directions), with its own weights.

    As published both gates start at 0: nothing is exchanged, and only the gates get a gradient.

    Args:
        dim: features of the encoders' tokens.
        width: features of the bottleneck.
        learns_missing: whether a missing modality is heard as a learned vector.
        audio_hears: whether sound hears of the picture at all.
        gate_start: initial value of both gates.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        *,
        learns_missing: bool,
        audio_hears: bool = True,
        gate_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.video_down = nn.Linear(dim, width)
        self.video_down_norm = nn.LayerNorm(width)
        self.audio_down = nn.Linear(dim, width)
        self.audio_down_norm = nn.LayerNorm(width)
        self.video_up = nn.Linear(width, dim)
        self.audio_up = nn.Linear(width, dim)
        self.video_gate = nn.Parameter(torch.full((1,), gate_start))
        self.audio_gate = nn.Parameter(torch.full((1,), gate_start))
        self.missing_video = self.missing_audio = None
        if learns_missing:
            self.missing_audio = nn.Parameter(torch.zeros(width))
            self.missing_video = nn.Parameter(torch.zeros(width)) if audio_hears else None

    def forward(
        self, video_BTND: Tensor, audio_BND: Tensor, routes: Routes, presence: Presence
    ) -> tuple[Tensor, Tensor]:
        """The tokens of both encoders after the exchange."""
        video_BTNR = self.video_down_norm(self.video_down(video_BTND))
        audio_BNR = self.audio_down_norm(self.audio_down(audio_BND))
        heard_BTR = routes.video_hears_BTN.to(audio_BNR.dtype) @ audio_BNR
        heard_BTR = _replace(heard_BTR, presence.audio_B, self.missing_audio)
        video_BTNR_after = video_BTNR + heard_BTR[:, :, None]
        if routes.audio_hears_BNT is not None:
            is_cls = routes.frame_pool == "cls"
            frame_BTR = video_BTNR[:, :, 0] if is_cls else video_BTNR.mean(dim=2)
            seen_BNR = routes.audio_hears_BNT.to(frame_BTR.dtype) @ frame_BTR
            has_video_B = None if presence.face_BT is None else presence.face_BT.any(dim=1)
            audio_BNR = audio_BNR + _replace(seen_BNR, has_video_B, self.missing_video)
        video_change = self.video_gate.tanh() * F.gelu(self.video_up(video_BTNR_after))
        audio_change = self.audio_gate.tanh() * F.gelu(self.audio_up(audio_BNR))
        return video_BTND + video_change, audio_BND + audio_change


def _replace(heard_BNR: Tensor, is_there_B: Tensor | None, missing_R: Tensor | None) -> Tensor:
    if is_there_B is None or missing_R is None:
        return heard_BNR
    return torch.where(is_there_B[:, None, None], heard_BNR, missing_R.to(heard_BNR.dtype))
