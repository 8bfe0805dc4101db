"""The network of MMA-DFER against its published sizes, rules and formulas."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.contract import AudioSpec
from mien_models.layers.patch_encoder import EncoderConfig
from mien_models.layers.positions import resize_grid, sincos_grid
from mien_models.mma_dfer import MmaDfer, MmaDferConfig
from mien_models.mma_dfer.config import FusionConfig, PromptConfig, TemporalConfig
from mien_models.mma_dfer.fusion import Exchange, Presence, plan_routes
from mien_models.mma_dfer.model import MmaDferNetwork, PromptedEncoder, stretched_positions

UNUSED_HEADS = 778_228
DEAD_NORMS = 2_048
SMALL = MmaDferConfig(
    image_size_px=16,
    video_patch_px=8,
    num_frames=3,
    audio=AudioSpec(num_frames=32, num_mels=16),
    audio_patch=(8, 8),
    encoder=EncoderConfig(dim=16, depth=4, num_heads=2),
    video_code_grid=None,
    audio_code_grid=None,
    prompts=PromptConfig(per_stage=2, stage_period=2),
    fusion=FusionConfig(width=6),
    temporal=TemporalConfig(dim=12, num_heads=2, head_dim=4, mlp_dim=8),
)


def network_inputs(config: MmaDferConfig, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    side, audio = config.image_size_px, config.audio
    video = torch.rand(batch, config.num_frames, 3, side, side, generator=generator)
    return video, torch.randn(batch, audio.num_frames, audio.num_mels, generator=generator)


def open_gates(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith("gate"):
            nn.init.constant_(parameter, 0.7)


@pytest.mark.parametrize(
    ("side", "classes", "total", "trainable"),
    [
        (224, 7, 179_312_147, 7_632_415),
        (224, 11, 179_314_199, 7_634_467),
        (160, 7, 179_238_419, 7_558_687),
    ],
)
def test_paper_parameter_counts(side: int, classes: int, total: int, trainable: int) -> None:
    config = dataclasses.replace(MmaDferConfig.paper(), image_size_px=side)
    with torch.device("meta"):
        method = MmaDfer(config, tuple(str(label) for label in range(classes)))
    stage = method.stage(0)
    assert stage is not None
    counts = {name: value.numel() for name, value in method.named_parameters()}
    chosen = [n for n in counts if any(fnmatchcase(n, pattern) for pattern in stage.trainable)]
    assert sum(counts.values()) == total - UNUSED_HEADS - DEAD_NORMS
    assert sum(counts[name] for name in chosen) == trainable - DEAD_NORMS


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("network.exchanges.*.video_down*", 1_184_256),
        ("network.exchanges.*.audio_up.*", 1_188_864),
        ("network.exchanges.*gate", 24),
        ("network.video_encoder.prompt*", 9_216),
        ("network.audio_encoder.positions", 201_984),
        ("network.head.project.*", 393_728),
        ("network.head.[!p]*", 2_112_512 - DEAD_NORMS - 17 * 512),
        ("network.*_encoder.blocks.*", 2 * 85_054_464),
    ],
)
def test_paper_parameter_groups(pattern: str, count: int) -> None:
    with torch.device("meta"):
        method = MmaDfer(MmaDferConfig.paper(), tuple("abcdefg"))
    counts = {name: value.numel() for name, value in method.named_parameters()}
    assert sum(size for name, size in counts.items() if fnmatchcase(name, pattern)) == count


def test_initial_values() -> None:
    config = dataclasses.replace(
        SMALL,
        encoder=EncoderConfig(dim=192, depth=2, num_heads=2),
        prompts=PromptConfig(per_stage=200, stage_period=1),
        audio_code_grid=(8, 2),
    )
    torch.manual_seed(0)
    encoder = PromptedEncoder(config, config.audio_grid, config.audio_code_grid)
    assert encoder.prompts is not None
    assert encoder.prompt_offsets is not None
    assert encoder.prompts.shape == (400, 192)
    assert encoder.prompt_offsets.shape == (2, 200, 192)
    for prompt in (encoder.prompts, encoder.prompt_offsets):
        assert prompt.std().item() == pytest.approx(192**-0.5, rel=0.02)
    positions = encoder.positions[0]
    assert positions[9:].std().item() == pytest.approx(1.0, rel=0.02)
    assert not positions[0].any()
    expected = resize_grid(sincos_grid(192, (8, 2)), (8, 2), (4, 2))
    assert torch.equal(positions[1:9], expected)
    network = MmaDferNetwork(SMALL, 5)
    gates = [value for name, value in network.named_parameters() if name.endswith("gate")]
    assert len(gates) == 8
    assert not any(gate.any() for gate in gates)


def test_progressive_prompts_add_each_stage_s_offset_once() -> None:
    encoder = PromptedEncoder(SMALL, SMALL.video_grid, None)
    offsets = encoder.prompt_offsets
    assert offsets is not None
    tokens = torch.zeros(2, 1 + 4 + 4, 16)
    for block, stage in ((0, 0), (2, 1)):
        expected = torch.zeros_like(tokens)
        start = 5 + 2 * stage
        expected[:, start : start + 2] = offsets[stage]
        assert torch.equal(encoder.add_offset(block, tokens), expected)
    for block in (1, 3):
        assert encoder.add_offset(block, tokens) is tokens


def test_paper_prompts_sit_behind_the_patches_in_two_stages() -> None:
    with torch.device("meta"):
        encoder = MmaDfer(MmaDferConfig.paper(), tuple("abcdefg")).network.video_encoder
    assert encoder.prompts is not None
    assert encoder.prompt_offsets is not None
    assert encoder.prompts.shape == (6, 768)
    assert encoder.prompt_offsets.shape == (2, 3, 768)
    assert encoder.positions.shape == (1, 1 + 196 + 6, 768)
    assert encoder.tokens(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 203, 768)


def _linear(layer: nn.Linear, token: Tensor) -> Tensor:
    return layer.weight @ token + layer.bias


def _normed(layer: nn.LayerNorm, token: Tensor) -> Tensor:
    centred = token - token.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def _exchange_by_hand(
    exchange: Exchange, video: Tensor, audio: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """One clip, token by token: section 1.3, steps 1 to 4. ``video`` is [T * N, D] here."""
    low_video = [_normed(exchange.video_down_norm, _linear(exchange.video_down, t)) for t in video]
    low_audio = [_normed(exchange.audio_down_norm, _linear(exchange.audio_down, t)) for t in audio]
    mean_video = sum(low_video) / len(low_video)
    mean_audio = sum(low_audio) / len(low_audio)
    new_video = [
        token + exchange.video_gate.tanh() * F.gelu(_linear(exchange.video_up, low + mean_audio))
        for token, low in zip(video, low_video, strict=True)
    ]
    new_audio = [
        token + exchange.audio_gate.tanh() * F.gelu(_linear(exchange.audio_up, low + mean_video))
        for token, low in zip(audio, low_audio, strict=True)
    ]
    return new_video, new_audio


def test_exchange_follows_the_published_formula() -> None:
    torch.manual_seed(1)
    exchange = Exchange(8, 5, learns_missing=False)
    nn.init.constant_(exchange.video_gate, 0.4)
    nn.init.constant_(exchange.audio_gate, -0.9)
    for norm in (exchange.video_down_norm, exchange.audio_down_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    video, audio = torch.randn(2, 3, 4, 8), torch.randn(2, 6, 8)
    presence = Presence()
    routes = plan_routes("mean", presence, (video, audio), (2, 2))
    new_video, new_audio = exchange(video, audio, routes, presence)
    for clip in range(2):
        by_hand = _exchange_by_hand(exchange, video[clip].flatten(0, 1), audio[clip])
        torch.testing.assert_close(new_video[clip].flatten(0, 1), torch.stack(by_hand[0]))
        torch.testing.assert_close(new_audio[clip], torch.stack(by_hand[1]))


@pytest.mark.parametrize("operator", ["mean", "cls", "per_frame_mean", "one_way"])
def test_operators_hear_the_right_tokens(operator: str) -> None:
    """Which tokens move when one token of the other side does."""
    torch.manual_seed(2)
    exchange = Exchange(8, 5, learns_missing=False)
    open_gates(exchange)
    video, audio = torch.randn(1, 4, 3, 8), torch.randn(1, 1 + 4 * 2 + 1, 8)
    presence = Presence()
    routes = plan_routes(operator, presence, (video, audio), (4, 2))  # type: ignore[arg-type]
    old_video, old_audio = exchange(video, audio, routes, presence)
    moved_audio = audio.clone()
    moved_audio[:, 1] += 1.0  # First patch in time.
    new_video, _ = exchange(video, moved_audio, routes, presence)
    frames = (new_video != old_video).flatten(2).any(2)[0].tolist()
    moved_video = video.clone()
    moved_video[:, 3, 1] += 1.0  # A patch of the last frame.
    _, new_audio = exchange(moved_video, audio, routes, presence)
    tokens = (new_audio != old_audio).any(2)[0].tolist()
    expected = {
        "mean": ([True] * 4, [True] * 10),
        "cls": ([False] * 4, [False] * 10),
        "per_frame_mean": (
            [True, False, False, False],
            [True, *[False] * 6, True, True, True],
        ),
        "one_way": ([True] * 4, [False] * 10),
    }
    assert (frames, tokens) == expected[operator]


def test_aligned_routes_leave_nobody_without_a_neighbour() -> None:
    tokens = torch.ones(2, 1 + 6 * 2 + 3, dtype=torch.bool)
    tokens[1, 3:13] = False  # Sound in the first of six rows only.
    face = torch.tensor([[True, True], [False, False]])
    presence = Presence(face_BT=face, audio_token_BN=tokens)
    like = (torch.zeros(2, 2, 5, 4), torch.zeros(2, 16, 4))
    routes = plan_routes("per_frame_mean", presence, like, (6, 2))
    torch.testing.assert_close(routes.video_hears_BTN.sum(2), torch.ones(2, 2))
    assert not routes.video_hears_BTN[1, :, 3:].any()
    assert routes.audio_hears_BNT is not None
    torch.testing.assert_close(
        routes.audio_hears_BNT.sum(2), torch.tensor([[1.0], [0.0]]).expand(-1, 16)
    )


def _plain_encoder(encoder: PromptedEncoder, pictures: Tensor) -> Tensor:
    tokens = encoder.tokens(pictures)
    for index, block in enumerate(encoder.blocks):
        tokens = encoder.add_offset(index, block(tokens))
    return encoder.norm(tokens)[:, 0]  # type: ignore[no-any-return]


def test_at_the_start_the_network_is_its_frozen_encoders() -> None:
    torch.manual_seed(0)
    network = MmaDferNetwork(SMALL, 5).eval()
    video, audio = network_inputs(SMALL)
    video_BTD = _plain_encoder(network.video_encoder, video.flatten(0, 1)).unflatten(0, (2, 3))
    audio_BD = _plain_encoder(network.audio_encoder, audio[:, None])
    features = network.head(video_BTD, audio_BD, Presence())
    output = network(video, audio, Presence())
    torch.testing.assert_close(output.features_BD, features)
    torch.testing.assert_close(output.logits_BK, network.classifier(features))


def test_at_the_start_only_gates_of_the_exchanges_move() -> None:
    torch.manual_seed(0)
    network = MmaDferNetwork(SMALL, 5)
    video, audio = network_inputs(SMALL)
    network(video, audio, Presence()).logits_BK.square().sum().backward()
    exchanges = dict(network.exchanges.named_parameters())
    still = {name for name, value in exchanges.items() if not _gradient(value).any()}
    assert still == {name for name in exchanges if not name.endswith("gate")}
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert name in {f"exchanges.{key}" for key in still} or value.grad.any(), name


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_with_open_gates_everything_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = MmaDferNetwork(SMALL, 5)
    open_gates(network)
    video, audio = network_inputs(SMALL)
    network(video, audio, Presence()).logits_BK.square().sum().backward()
    assert [name for name, value in network.named_parameters() if not _gradient(value).any()] == []


def test_other_numbers_of_frames_stretch_the_positions() -> None:
    network = MmaDferNetwork(SMALL, 5).eval()
    ramp = torch.arange(1.0, 4.0)[None, :, None].expand(1, 3, 12)
    stretched = stretched_positions(ramp, 6)[0, :, 0]
    torch.testing.assert_close(stretched, torch.tensor([1.0, 1.25, 1.75, 2.25, 2.75, 3.0]))
    video, audio = network_inputs(SMALL)
    assert network(video.repeat(1, 2, 1, 1, 1), audio, Presence()).logits_BK.shape == (2, 5)


@pytest.mark.parametrize(
    ("blocks", "indices"),
    [
        ("all", (0, 1, 2, 3, 4)),
        ("last_half", (2, 3, 4)),
        ("every_second", (1, 3)),
        ("none", ()),
    ],
)
def test_fused_blocks(blocks: str, indices: tuple[int, ...]) -> None:
    assert FusionConfig(blocks=blocks).fused_blocks(5) == indices  # type: ignore[arg-type]


def test_drop_path_rises_to_its_rate_and_acts_in_training_only() -> None:
    config = dataclasses.replace(
        SMALL, encoder=EncoderConfig(dim=16, depth=3, num_heads=2, drop_path=0.5)
    )
    network = MmaDferNetwork(config, 5)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.audio_encoder.blocks]
    assert rates == [0.0, 0.25, 0.5]
    video, audio = network_inputs(config)
    torch.manual_seed(0)
    drawn = [network(video, audio, Presence()).logits_BK for _ in range(2)]
    assert not torch.equal(*drawn)
    network.eval()
    fixed = [network(video, audio, Presence()).logits_BK for _ in range(2)]
    assert torch.equal(*fixed)


def test_recomputed_activations_give_the_same_gradients_bit_for_bit() -> None:
    plain = MmaDferNetwork(SMALL, 5)
    thrifty = MmaDferNetwork(dataclasses.replace(SMALL, recompute_activations=True), 5)
    thrifty.load_state_dict(plain.state_dict())
    video, audio = network_inputs(SMALL)
    gradients = []
    for network in (plain, thrifty):
        network.train()
        torch.manual_seed(3)  # of the drop path
        network(video, audio, Presence()).logits_BK.logsumexp(1).sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})

    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
