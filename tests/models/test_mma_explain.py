"""What MMA-DFER shows of its weighing, and its heat maps, against computation by hand."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from mien_models.contract import (
    ClipBatch,
    effect_of,
    plain_batch,
    without_audio,
    without_video,
)
from mien_models.explain import heat_maps
from mien_models.layers.patch_encoder import EncoderConfig
from mien_models.mma_dfer import MmaDfer, MmaDferConfig
from mien_models.mma_dfer.config import FusionConfig, PromptConfig

CONFIG = dataclasses.replace(
    MmaDferConfig.tiny(),
    image_size_px=32,
    border_px=0,
    video_patch_px=8,
    motion_gain=None,
    encoder=EncoderConfig(dim=16, depth=2, num_heads=2),
    readout="cls",
    prompts=PromptConfig(per_stage=1, stage_period=1),
    fusion=FusionConfig(width=8, gate_start=0.5),
    autoencoder=None,
)


def make_method(seed: int = 0, **changes: object) -> MmaDfer:
    torch.manual_seed(seed)
    method = MmaDfer(dataclasses.replace(CONFIG, **changes), ("a", "b", "c"))  # type: ignore[arg-type]
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(method.network.classifier.weight, std=0.02)  # far from certain
    return method.eval()


def make_batch(clips: int = 2) -> ClipBatch:
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (clips, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    audio = torch.randn(clips, CONFIG.audio.num_frames, CONFIG.audio.num_mels, generator=generator)
    return plain_batch(video, audio)


def test_shares_are_shares_and_maps_lie_on_the_grid() -> None:
    method, batch = make_method(), make_batch()

    found, heat_BSRC = method.inner_weights(batch), heat_maps(method, batch).heat_BSRC

    assert found.frame_share_BT is not None
    assert found.attention_BTRC is not None
    assert heat_BSRC.shape == found.attention_BTRC.shape == (2, 4, 4, 4)
    torch.testing.assert_close(found.frame_share_BT.sum(dim=1), torch.ones(2))
    assert heat_BSRC.min() >= 0
    torch.testing.assert_close(heat_BSRC.amax(dim=(1, 2, 3)), torch.ones(2))
    assert list(found.figures) == [
        f"exchange_0{block}_{side}" for block in (0, 1) for side in ("video", "audio")
    ]
    assert all(value.shape == (2,) for value in found.figures.values())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_what_passes_a_gate_is_measured_clip_by_clip() -> None:
    method, batch = make_method(), make_batch()
    exchange = method.network.exchanges["0"]
    seen: list[tuple[Tensor, Tensor]] = []
    handle = exchange.register_forward_hook(lambda _, i, o: seen.append((i[0], o[0])))
    found = method.inner_weights(batch).figures["exchange_00_video"]
    handle.remove()
    before, after = seen[0]
    by_hand = [float((after[k] - before[k]).norm() / before[k].norm()) for k in range(2)]

    torch.testing.assert_close(found, torch.tensor(by_hand))
    assert by_hand[0] != by_hand[1]


def test_heat_is_grad_cam_by_finite_differences() -> None:
    method, batch = make_method(), make_batch(clips=1)
    tokens: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}

    def change(_: nn.Module, __: object, output: Tensor) -> Tensor:
        tokens["last"] = output.detach()
        return output + changes.get("now", torch.zeros(()))

    method.network.video_encoder.blocks[-1].register_forward_hook(change)
    found = heat_maps(method, batch)
    label, step = int(found.class_B[0]), 1e-2

    def logit() -> float:
        with torch.no_grad():
            return float(method.predict(batch).logits_BK[0, label])

    logit()
    frames, places, dim = tokens["last"].shape
    weight_TD = torch.zeros(frames, dim)
    for frame in range(frames):
        for feature in range(dim):
            # The mean over places of the gradient is the slope along equal steps in all places.
            changes["now"] = torch.zeros_like(tokens["last"])
            changes["now"][frame, :, feature] = step
            above = logit()
            changes["now"][frame, :, feature] = -step
            weight_TD[frame, feature] = (above - logit()) / (2 * step) / places
    changes.clear()
    logit()
    expected = torch.relu((weight_TD[:, None] * tokens["last"]).sum(dim=2))[:, 1:17]
    expected = expected.reshape(4, 4, 4) / expected.max()

    torch.testing.assert_close(found.heat_BSRC[0], expected, atol=5e-3, rtol=5e-2)


def test_attention_is_that_of_the_encoder() -> None:
    method, batch = make_method(), make_batch()
    attention = method.network.video_encoder.blocks[-1].attn
    seen: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = method.inner_weights(batch).attention_BTRC
    handle.remove()
    assert found is not None
    x = seen[0]
    qkv = attention.qkv(x).reshape(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
    by_hand = (qkv[0] @ qkv[1].transpose(-2, -1) * 8**-0.5).softmax(-1).mean(1)[:, 0, 1:17]

    torch.testing.assert_close(found.flatten(0, 1).flatten(1), by_hand.detach())


def test_a_modality_that_nothing_listens_to_has_no_effect() -> None:
    method, batch = make_method(fusion=FusionConfig(blocks="none")), make_batch()
    with torch.no_grad():
        for parameter in method.network.audio_encoder.norm.parameters():
            parameter.zero_()
        assert method.network.head.missing_audio is not None
        method.network.head.missing_audio.zero_()

    class_B = torch.zeros(2, dtype=torch.int64)

    logits_BK = method.predict(batch).logits_BK

    sound_B, picture_B = (
        effect_of(method, batch, without, logits_BK=logits_BK, class_B=class_B)
        for without in (without_audio, without_video)
    )

    torch.testing.assert_close(sound_B, torch.zeros(2), atol=1e-6, rtol=0)
    assert (picture_B.abs() > 1e-3).all()


def test_an_effect_is_the_change_of_the_log_probability() -> None:
    method, batch = make_method(), make_batch()
    asked = torch.tensor([2, 0])
    silent = dataclasses.replace(
        batch,
        has_audio_B=torch.zeros(2, dtype=torch.bool),
        audio_frames_B=torch.zeros(2, dtype=torch.int64),
    )
    with torch.no_grad():
        both = method.predict(batch).logits_BK.log_softmax(1)
        alone = method.predict(silent).logits_BK.log_softmax(1)

    logits_BK = method.predict(batch).logits_BK
    found = effect_of(method, batch, without_audio, logits_BK=logits_BK, class_B=asked)

    expected = torch.stack([both[0, 2] - alone[0, 2], both[1, 0] - alone[1, 0]])
    torch.testing.assert_close(found, expected)


def test_closed_gates_exchange_nothing() -> None:
    method = make_method()
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "gate" in name:
                parameter.zero_()

    figures = method.inner_weights(make_batch()).figures
    assert len(figures) == 4
    assert all(torch.equal(value, torch.zeros(2)) for value in figures.values())


def test_frames_that_are_averaged_have_no_shares() -> None:
    temporal = dataclasses.replace(CONFIG.temporal, depth=0)

    found = make_method(temporal=temporal).inner_weights(make_batch())

    assert found.frame_share_BT is None
    assert found.attention_BTRC is not None
