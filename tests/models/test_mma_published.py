"""Published weights in our network: same names, same sizes, same outputs."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from mien_models.contract import plain_batch
from mien_models.layers.pretrained import WeightsMismatchError
from mien_models.layers.vit_weights import vit_shapes
from mien_models.mma_dfer import MmaDfer, MmaDferConfig
from mien_models.mma_dfer.published import DFEW_CLASSES, from_published

LITERAL = Path(__file__).parents[2] / "benchmarks" / "literal_mma_dfer.py"


def load_literal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("literal_mma_dfer", LITERAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def literal() -> Iterator[ModuleType]:
    yield load_literal()
    sys.modules.pop("literal_mma_dfer")


def small_paper() -> MmaDferConfig:
    paper = MmaDferConfig.paper()
    encoder = dataclasses.replace(paper.encoder, dim=24, num_heads=2)
    fusion = dataclasses.replace(paper.fusion, width=8)
    temporal = dataclasses.replace(paper.temporal, dim=16, num_heads=2, head_dim=8, mlp_dim=24)
    return dataclasses.replace(paper, encoder=encoder, fusion=fusion, temporal=temporal)


def small_literal(literal: ModuleType) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = literal.LiteralMmaDfer(
        literal.Sizes(
            image_px=32, dim=24, num_heads=2, bottleneck=8, head_dim=16, head_heads=2, head_mlp=24
        )
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gate" in name:
                parameter.fill_(0.7)
    return network.eval()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (2, 16, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return video, torch.randn(2, 512, 128, generator=generator)


@pytest.fixture
def small_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``paper`` small, so that a whole import runs in a moment."""
    small = small_paper()
    monkeypatch.setattr(MmaDferConfig, "paper", classmethod(lambda _: small))


@pytest.mark.usefixtures("small_profile")
def test_imported_weights_give_the_literal_network_s_logits(literal: ModuleType) -> None:
    reference = small_literal(literal)
    method = from_published(reference.state_dict()).eval()
    video, audio = inputs()

    with torch.no_grad():
        expected = reference(video.float() / 255, audio)
        found = method.predict(plain_batch(video, audio)).logits_BK

    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert method.classes == DFEW_CLASSES
    assert method.config.image_size_px == 32


@pytest.mark.usefixtures("small_profile")
def test_what_does_not_match_is_listed(literal: ModuleType) -> None:
    tensors = small_literal(literal).state_dict()
    del tensors["vision_proj.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["image_encoder.all_gate.3"] = torch.zeros(2)

    with pytest.raises(WeightsMismatchError) as caught:
        from_published(tensors)

    text = str(caught.value)
    assert "missing: head.project.bias" in text
    assert "not expected: extra" in text
    assert "exchanges.3.video_gate is [2], expected [1]" in text


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.usefixtures("small_profile")
def test_an_unknown_number_of_classes_is_refused(literal: ModuleType, count: int) -> None:
    tensors = small_literal(literal).state_dict()
    tensors["our_classifier.weight"] = torch.zeros(count, 16)

    with pytest.raises(WeightsMismatchError, match=f"{count} classes"):
        from_published(tensors)


def test_another_model_s_weights_are_refused() -> None:
    with pytest.raises(WeightsMismatchError, match="no checkpoint of MMA-DFER"):
        from_published({"fc.weight": torch.zeros(2, 2)})


def test_the_published_sizes_are_those_of_the_table(literal: ModuleType) -> None:
    with torch.device("meta"):
        network = literal.LiteralMmaDfer(literal.Sizes())

    assert len(network.state_dict()) == 500
    assert sum(p.numel() for p in network.parameters()) == 179_312_147
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 7_632_415


def vit_tensors(method: MmaDfer, channels: int, num_positions: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = vit_shapes(
        method.config.encoder, channels=channels, patch=(16, 16), num_positions=num_positions
    )
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return tensors | {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.bias": torch.zeros(8)}


@pytest.mark.parametrize(
    ("part", "channels", "num_positions"), [("video_encoder", 3, 197), ("audio_encoder", 1, 513)]
)
def test_encoders_take_published_weights(part: str, channels: int, num_positions: int) -> None:
    method = MmaDfer(dataclasses.replace(small_paper(), image_size_px=224), ("a", "b"))
    tensors = vit_tensors(method, channels, num_positions)
    encoder = getattr(method.network, part)
    prompts_before = encoder.positions[:, -6:].clone()

    method.load_pretrained(part, tensors)

    assert torch.equal(encoder.blocks[11].attn.qkv.weight, tensors["blocks.11.attn.qkv.weight"])
    assert torch.equal(encoder.patch_embed.weight, tensors["patch_embed.proj.weight"])
    assert torch.equal(encoder.positions[:, :1], tensors["pos_embed"][:, :1])
    assert torch.equal(encoder.positions[:, -6:], prompts_before)
    if part == "video_encoder":
        assert torch.equal(encoder.positions[:, 1:197], tensors["pos_embed"][:, 1:])
    else:
        # 64 x 8 places squeezed onto 32 x 8: bicubic halving weighs rows 2k-1 ... 2k+2 by
        # -3/32, 19/32, 19/32, -3/32 (kernel with a = -0.75 at distances 1.5 and 0.5).
        rows = tensors["pos_embed"][0, 1:].reshape(64, 8, -1)
        weights = torch.tensor([-3.0, 19.0, 19.0, -3.0])[:, None, None] / 32
        by_hand = (weights * rows[9:13]).sum(dim=0)
        found = encoder.positions[0, 1:257].reshape(32, 8, -1)[5]
        torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-5)


def test_the_wrong_encoder_is_refused_and_leaves_no_trace() -> None:
    method = MmaDfer(small_paper(), ("a", "b"))
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}

    with pytest.raises(WeightsMismatchError, match=r"patch_embed.proj.weight is \[24, 1, 16, 16\]"):
        method.load_pretrained("video_encoder", vit_tensors(method, 1, 513))

    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    with pytest.raises(ValueError, match="no weights for 'nose'"):
        method.load_pretrained("nose", {})


def test_learnt_encoders_need_no_pretrained_ones() -> None:
    assert MmaDfer(MmaDferConfig.tiny(), ("a", "b")).pretrained_parts() == ()
    assert MmaDfer(small_paper(), ("a", "b")).pretrained_parts() == (
        "video_encoder",
        "audio_encoder",
    )
