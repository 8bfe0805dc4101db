"""Published weights that Mien knows: what they are, how they are checked, what becomes of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mien.clips.labels import KNOWN_LABEL_SETS, LabelSet
from mien.infer.package import PackageInfo, save_package, sha256_of
from mien.weights.part_file import PartFacts, facts_in, write_part
from mien.weights.torch_file import read_tensors
from mien_jobs import overrides
from mien_jobs.methods import load_method
from mien_jobs.recipes import mma_dfer as recipes
from mien_jobs.typed_values import nearest
from mien_models.layers.patch_encoder import EncoderConfig
from mien_models.layers.pretrained import check_tensors, load_trunk
from mien_models.layers.vit_weights import encoder_tensors, vit_shapes
from mien_models.mma_dfer.published import from_published


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderKind:
    """A published ViT-B/16 with a class token."""

    part: str
    """The part of a method that it is for."""
    channels: int
    num_positions: int
    """Rows of its position codes: class token and patches."""
    licence: str
    what: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that such a file must hold."""
        return vit_shapes(
            EncoderConfig(),
            channels=self.channels,
            patch=(16, 16),
            num_positions=self.num_positions,
        )


ENCODERS: Mapping[str, EncoderKind] = {
    "mae_face": EncoderKind(
        part="video_encoder",
        channels=3,
        num_positions=197,
        licence="MIT",
        what="MAE-Face, ViT-B/16 pretrained on faces (mae_face_pretrain_vit_base.pth)",
    ),
    "audiomae": EncoderKind(
        part="audio_encoder",
        channels=1,
        num_positions=513,
        licence="CC-BY-NC-4.0",
        what="AudioMAE, ViT-B/16 pretrained on AudioSet-2M (audiomae_pretrained.pth)",
    ),
    "mae": EncoderKind(
        part="video_encoder",
        channels=3,
        num_positions=197,
        licence="CC-BY-NC-4.0",
        what="MAE, ViT-B/16 pretrained on ImageNet, from its authors or from timm",
    ),
}
TIMM = "timm:"
"""Prefix of kinds: ``timm:resnet50`` is a trunk with the names of timm's resnet50."""
MMA_DFER = "mma_dfer"
KINDS: Mapping[str, str] = {
    **{name: kind.what for name, kind in ENCODERS.items()},
    f"{TIMM}NAME": "the trunk of a timm network, from timm or torchvision (timm:resnet50)",
    MMA_DFER: "MMA-DFER, the whole published model (DFEW or MAFW); becomes a model package",
}
"""What ``mien weights import --as`` knows."""


def import_encoder(file: Path, kind: str, out: str) -> str:
    """Checks a published encoder and writes it as a part that training reads.

    Returns:
        The SHA-256 of what was written.

    Raises:
        WeightsError: not the weights that ``kind`` stands for; lists what does not match.
    """
    expected = ENCODERS[kind]
    found = encoder_tensors(read_tensors(file))
    check_tensors(found, expected.shapes, f"{kind} ({expected.what})")
    facts = PartFacts(
        kind=kind, part=expected.part, licence=expected.licence, source_sha256=sha256_of(file)
    )
    return write_part(out, facts, found)


def import_trunk(file: Path, name: str, out: str) -> str:
    """Checks the weights of a timm network and writes them as the part ``trunk``.

    Returns:
        The SHA-256 of what was written.

    Raises:
        WeightsError: not that network's weights; lists what does not match.
        ValueError: timm has no network of that name.
    """
    # Not on top: importing it takes seconds, and it needs what `mien_models` does for torchvision.
    import timm

    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise ValueError(
            f"--as {TIMM}{name}: timm has no such network"
            + (f"; did you mean {near}?" if near else "")
        )
    trunk = timm.create_model(name, num_classes=0)
    load_trunk(trunk, read_tensors(file), name)
    facts = PartFacts(
        kind=TIMM + name, part="trunk", licence="see its source", source_sha256=sha256_of(file)
    )
    return write_part(out, facts, trunk.state_dict())


def extract_part(package: Path, part: str, out: str) -> tuple[str, str]:
    """Writes a part of a trained model for other trainings to start from.

    Returns:
        The model's method, and the SHA-256 of what was written.

    Raises:
        PackageError: not a package.
        ValueError: the method gives no such part away.
    """
    info, method = load_method(package, features_only=True)
    licences = {facts["licence"] for facts in info.pretrained.values()}
    facts = PartFacts(
        kind=f"{info.method}:{info.recipe.get('name', package.name)}",
        part=part,
        licence=", ".join(sorted(licences)) or "of its training's clips",
        source_sha256=info.weights_sha256,
    )
    return info.method, write_part(out, facts, method.part_tensors(part))


def import_method(file: Path, out: Path) -> PackageInfo:
    """Makes a model package of a published MMA-DFER checkpoint.

    Raises:
        WeightsError: not such a checkpoint; lists what does not match.
    """
    method = from_published(read_tensors(file))
    recipe = dataclasses.replace(recipes.recipe("paper"), config=method.config)
    resolved = json.loads(overrides.to_json(recipe))
    info = PackageInfo(
        method=MMA_DFER,
        config=resolved["config"],
        label_set=_label_set(method.classes),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
        recipe=resolved | {"imported_from": {"file": file.name, "sha256": sha256_of(file)}},
    )
    save_package(out, info, method.state_dict())
    return info


def _label_set(classes: tuple[str, ...]) -> LabelSet:
    known = (kept for kept in KNOWN_LABEL_SETS.values() if kept.classes == classes)
    return next(known, LabelSet(name=f"published{len(classes)}", classes=classes))


def describe_file(file: Path) -> list[str]:
    """Lines about an unknown file: what its tensors look like and which kinds it could be."""
    tensors = read_tensors(file)
    total = sum(tensor.numel() for tensor in tensors.values())
    lines = [f"{file}: {len(tensors)} tensors, {total:,} numbers"]
    lines += [f"  {name} {list(tensor.shape)}" for name, tensor in list(tensors.items())[:8]]
    if len(tensors) > 8:
        lines.append(f"  ... and {len(tensors) - 8} more")
    facts = facts_in(file.read_bytes()) if file.suffix == ".safetensors" else None
    if facts is not None:
        return [
            *lines,
            f"is: {facts.part} of {facts.kind}, licence {facts.licence}",
            f"train with it: --set weights.{facts.part}={file}",
        ]
    fitting = [kind for kind in ENCODERS if _fits(tensors, kind)]
    if "image_encoder.learnable_prompts_init" in tensors:
        fitting.append(MMA_DFER)
    lines.append(f"fits: {', '.join(fitting) or 'none of ' + ', '.join(KINDS)}")
    return lines


def _fits(tensors: Mapping[str, Tensor], kind: str) -> bool:
    found = {name: tuple(tensor.shape) for name, tensor in encoder_tensors(tensors).items()}
    return found == ENCODERS[kind].shapes
