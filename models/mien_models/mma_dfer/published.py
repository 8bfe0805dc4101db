"""The published MMA-DFER checkpoints: their names, and what their shapes say about the settings.

Names are facts about the files (there are 500 tensors); see README.md for what is left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mien_models.layers.pretrained import WeightsMismatchError, check_tensors, without
from mien_models.mma_dfer.config import MmaDferConfig
from mien_models.mma_dfer.method import MmaDfer

DFEW_CLASSES = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
MAFW_CLASSES = (*DFEW_CLASSES, "contempt", "anxiety", "helplessness", "disappointment")
"""Order of the logits of the released checkpoints (that of their annotation files)."""

_LAYER = r"temporal_net\.temporal_transformer\.layers\.(\d+)\."
_NAMES = (
    (r"image_encoder\.temporal_pre\.(\d+)\.", r"exchanges.\1.video_down."),
    (r"image_encoder\.temporal_pre_norm\.(\d+)\.", r"exchanges.\1.video_down_norm."),
    (r"image_encoder\.audio_proj_pre\.(\d+)\.0\.", r"exchanges.\1.audio_down."),
    (r"image_encoder\.audio_proj_pre\.(\d+)\.1\.", r"exchanges.\1.audio_down_norm."),
    (r"image_encoder\.temporal_att_post\.(\d+)\.0\.", r"exchanges.\1.video_up."),
    (r"audio_model\.temporal_att_post\.(\d+)\.0\.", r"exchanges.\1.audio_up."),
    (r"image_encoder\.all_gate\.(\d+)$", r"exchanges.\1.video_gate"),
    (r"audio_model\.all_gate\.(\d+)$", r"exchanges.\1.audio_gate"),
    (r"(image_encoder|audio_model)\.learnable_prompts_init$", r"\1.prompts"),
    (r"(image_encoder|audio_model)\.pos_embed$", r"\1.positions"),
    (r"(image_encoder|audio_model)\.patch_embed\.proj\.", r"\1.patch_embed."),
    (r"vision_proj\.", "head.project."),
    (r"temporal_net\.cls_token$", "head.cls_token"),
    (r"temporal_net\.pos_embedding$", "head.positions"),
    (_LAYER + r"0\.fn\.norm\.", r"head.blocks.\1.attention_norm."),
    (_LAYER + r"0\.fn\.fn\.to_q\.", r"head.blocks.\1.query."),
    (_LAYER + r"0\.fn\.fn\.to_kv\.", r"head.blocks.\1.key_value."),
    (_LAYER + r"0\.fn\.fn\.to_out\.0\.", r"head.blocks.\1.attention_out."),
    (_LAYER + r"1\.fn\.norm\.", r"head.blocks.\1.mlp_norm."),
    (_LAYER + r"1\.fn\.fn\.net\.0\.", r"head.blocks.\1.mlp_in."),
    (_LAYER + r"1\.fn\.fn\.net\.3\.", r"head.blocks.\1.mlp_out."),
    (r"our_classifier\.", "classifier."),
    (r"image_encoder\.", "video_encoder."),
    (r"audio_model\.", "audio_encoder."),
)
"""Rules tried in order; all that match are applied, so that the last two rename what is left."""
_OFFSETS = re.compile(r"(image_encoder|audio_model)\.learnable_prompts_progr\.(\d+)$")
_IDLE = re.compile(r"(image_encoder|audio_model)\.head\.|.*\.fn\.norm2\.")


def published_config(tensors: Mapping[str, Tensor]) -> MmaDferConfig:
    """The profile ``paper`` with the sizes that a published checkpoint has.

    Raises:
        WeightsMismatchError: the tensors that tell the sizes are not there.
    """
    config = MmaDferConfig.paper()
    try:
        num_tokens = tensors["image_encoder.pos_embed"].shape[1]
        num_prompts = tensors["image_encoder.learnable_prompts_init"].shape[0]
        num_frames = tensors["temporal_net.pos_embedding"].shape[1] - 1
    except (KeyError, IndexError) as error:
        raise WeightsMismatchError(
            "this is no checkpoint of MMA-DFER: expected image_encoder.pos_embed, "
            "image_encoder.learnable_prompts_init and temporal_net.pos_embedding among its "
            f"{len(tensors)} tensors"
        ) from error
    side = round((num_tokens - 1 - num_prompts) ** 0.5)
    return dataclasses.replace(
        config, image_size_px=side * config.video_patch_px, num_frames=num_frames
    )


def published_classes(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Classes of a published checkpoint, known by their number (7: DFEW, 11: MAFW).

    Raises:
        WeightsMismatchError: another number.
    """
    head = tensors.get("our_classifier.weight")
    num_classes = 0 if head is None else head.shape[0]
    for classes in (DFEW_CLASSES, MAFW_CLASSES):
        if len(classes) == num_classes:
            return classes
    raise WeightsMismatchError(
        f"the checkpoint tells {num_classes} classes apart; published are 7 (DFEW) and 11 (MAFW)"
    )


def from_published(tensors: Mapping[str, Tensor]) -> MmaDfer:
    """The network of a published checkpoint.

    Args:
        tensors: its state dict, without the prefix ``module.``.

    Raises:
        WeightsMismatchError: lists what does not match, by our names.
    """
    config, classes = published_config(tensors), published_classes(tensors)
    method = MmaDfer(config, classes)
    renamed = _renamed(without(tensors, lambda name: _IDLE.match(name) is not None))
    shapes = {name: tuple(tensor.shape) for name, tensor in method.network.state_dict().items()}
    check_tensors(renamed, shapes, "the published MMA-DFER")
    method.network.load_state_dict(renamed)
    return method


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by our names; a stage's prompt offsets become rows of one tensor."""
    renamed: dict[str, Tensor] = {}
    offsets: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _OFFSETS.match(name)
        if match:
            offsets.setdefault(match[1], {})[int(match[2])] = tensor
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(f"^(?:{pattern})", replacement, name)
        renamed[name] = tensor
    for encoder, stages in offsets.items():
        part = "video" if encoder == "image_encoder" else "audio"
        stacked = torch.stack([stages[stage] for stage in sorted(stages)])
        renamed[f"{part}_encoder.prompt_offsets"] = stacked
    return renamed
