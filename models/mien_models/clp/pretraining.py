"""The stage without labels: momentum keys, the dictionary, and the losses between them.

Shape legend: B clips, T frames, M = B * T frames, N keys of the dictionary, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.clp.centring import RunningWhitening
from mien_models.clp.config import PretrainConfig
from mien_models.clp.dictionary import KeyDictionary
from mien_models.clp.model import EmbeddingNetwork
from mien_models.clp.monitor import CollapseMonitor
from mien_models.clp.reconstruction import (
    attend,
    instance_loss,
    rebuild,
    reconstruction_loss,
    relative_entropy,
)
from mien_models.clp.temporal import distinct_frames, temporal_loss, usable_frames
from mien_models.contract import ClipBatch, EpochNotes, StepOutput
from mien_models.layers.ema_teacher import EmaTeacher


@dataclass(frozen=True, kw_only=True)
class EmbeddedClips:
    """Both looks at a batch of clips."""

    query_BTE: Tensor
    key_BTE: Tensor
    """Without gradient."""
    usable_BT: Tensor
    subject_B: Tensor

    @property
    def subject_M(self) -> Tensor:
        """Subject of each frame."""
        return self.subject_B.repeat_interleave(self.usable_BT.shape[1])


class Pretraining(nn.Module):
    """What only pretraining needs; let go when it ends.

    Args:
        network: the query encoder, with its projector if it has one.
        config: losses and dictionary.
    """

    def __init__(self, network: EmbeddingNetwork, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.momentum = EmaTeacher(network, decay=config.momentum, ramp=False)
        dim = network.embedding_dim
        self.query_centring, self.key_centring = RunningWhitening(dim), RunningWhitening(dim)
        self.dictionary = KeyDictionary(config.dictionary_size, dim)
        self.monitor = CollapseMonitor(dim, config.collapse)
        self._seen: list[EmbeddedClips] = []

    def forward(self, network: EmbeddingNetwork, batch: ClipBatch, epoch: int) -> StepOutput:
        """Losses of one step; remembers the keys for :meth:`after_step`."""
        clips = self._embed(network, batch)
        distinct_BTT = distinct_frames(batch.video_BTCHW, self.config.temporal.min_change)
        parts = self._losses(clips, distinct_BTT, epoch)
        self.monitor.observe_embeddings(clips.query_BTE, clips.usable_BT)
        self._seen.append(clips)
        logs = {name: part.detach() for name, part in parts.items()}
        return StepOutput(loss=torch.stack(list(parts.values())).sum(), logs=logs)

    def _embed(self, network: EmbeddingNetwork, batch: ClipBatch) -> EmbeddedClips:
        query, key = batch.views
        with torch.no_grad():
            key_BTE = self.key_centring(self.momentum(key.video_BTCHW, key.has_face_BT))
        return EmbeddedClips(
            query_BTE=self.query_centring(network(query.video_BTCHW, query.has_face_BT)),
            key_BTE=key_BTE,
            usable_BT=usable_frames(query),
            subject_B=batch.subject_B,
        )

    def _losses(
        self, clips: EmbeddedClips, distinct_BTT: Tensor, epoch: int
    ) -> Mapping[str, Tensor]:
        """The weighted parts of the loss, each a mean over the clips."""
        config, keys_NE = self.config, self.dictionary.keys_NE
        parts: dict[str, Tensor] = {}
        if config.temporal.weight > 0:
            lost_B = temporal_loss(
                clips.query_BTE, clips.key_BTE, clips.usable_BT, distinct_BTT, config.temporal
            )
            parts["temporal_loss"] = config.temporal.weight * lost_B.mean()
        if config.reconstruction.weight > 0:
            is_warm = epoch >= config.reconstruction.warmup_epochs
            lost = self._reconstruction(clips) if is_warm else 0.0 * clips.query_BTE.sum()
            parts["reconstruction_loss"] = config.reconstruction.weight * lost
        if config.instance_weight > 0:
            lost_B = instance_loss(
                clips.query_BTE,
                clips.key_BTE,
                clips.usable_BT,
                keys_NE,
                self.dictionary.filled_N,
                temperature=config.instance_temperature,
            )
            parts["instance_loss"] = config.instance_weight * lost_B.mean()
        return parts

    def _reconstruction(self, clips: EmbeddedClips) -> Tensor:
        """CIR's loss, a mean over the clips; frames that nobody else's key may rebuild don't
        count."""
        c, keys_NE = self.config.reconstruction, self.dictionary.keys_NE
        allowed_MN = self.dictionary.of_others(clips.subject_M)
        attention_MN = attend(
            clips.query_BTE.flatten(0, 1),
            keys_NE,
            allowed_MN,
            temperature=c.attention_temperature,
            top_k=c.top_k,
        )
        rebuilt_ME = rebuild(attention_MN, keys_NE)
        counted_BT = clips.usable_BT & allowed_MN.any(dim=1).view_as(clips.usable_BT)
        with torch.no_grad():
            mean_E = F.normalize(keys_NE[self.dictionary.filled_N].sum(dim=0), dim=0)
            self.monitor.observe_attention(
                relative_entropy(attention_MN, allowed_MN, c.top_k),
                rebuilt_ME @ mean_E,
                counted_BT.flatten(),
            )
        rebuilt_BTE = rebuilt_ME.view_as(clips.query_BTE)
        return reconstruction_loss(rebuilt_BTE, clips.key_BTE, counted_BT, c).mean()

    def after_step(self, network: EmbeddingNetwork) -> None:
        """Moves the momentum encoder; puts the step's keys into the dictionary."""
        self.momentum.update(network)
        seen, self._seen = self._seen, []
        for clips in seen:
            self.dictionary.add(
                clips.key_BTE.flatten(0, 1), clips.subject_M, clips.usable_BT.flatten()
            )

    def end_epoch(self) -> EpochNotes:
        """The monitor's numbers, and how far the dictionary is filled.

        Raises:
            CollapsedError: the pretraining is dead.
            ValueError: nobody knows who is who, and reconstruction is wanted.
        """
        notes = self.monitor.end_epoch()
        known_N = self.dictionary.subject_N >= 0
        filled = int(self.dictionary.filled_N.sum())
        if self.config.reconstruction.weight > 0 and not bool(known_N.any()):
            raise ValueError(
                "no training clip says who it shows, so no face can be rebuilt from *other* "
                "people's: fill the manifest's column subject_id, or use "
                "config.pretrain.reconstruction.weight=0"
            )
        return EpochNotes(
            logs={
                **notes.logs,
                "dictionary_filled": filled / len(known_N),
                "dictionary_people": float(len(self.dictionary.subject_N[known_N].unique())),
            },
            warnings=notes.warnings,
        )
