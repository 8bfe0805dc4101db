"""Position codes, per-clip random numbers, patches and the masked autoencoder's parts."""

from __future__ import annotations

import math

import pytest
import torch

from mien_models.layers.clip_random import clip_uniform
from mien_models.layers.masked_autoencoder import PatchDecoder, hidden_patch_error, mask_patches
from mien_models.layers.patch_encoder import EncoderConfig, PatchEncoder, PatchGrid
from mien_models.layers.positions import resize_grid, sincos_grid

SMALL = EncoderConfig(dim=16, depth=2, num_heads=2)
GRID = PatchGrid(channels=3, size=(8, 12), patch=(4, 4))


def test_sincos_grid_codes_columns_first_then_rows() -> None:
    codes = sincos_grid(8, (2, 3))
    assert codes.shape == (6, 8)
    row, column = 1, 2
    slow = 1 / math.sqrt(10000.0)
    column_part = [math.sin(column), math.sin(column * slow)]
    column_part += [math.cos(column), math.cos(column * slow)]
    row_part = [math.sin(row), math.sin(row * slow), math.cos(row), math.cos(row * slow)]
    torch.testing.assert_close(codes[row * 3 + column], torch.tensor(column_part + row_part))


def test_sincos_grid_refuses_odd_sizes() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_grid(6, (2, 2))


def test_resize_grid_keeps_equal_grids_and_constants() -> None:
    codes = torch.randn(12, 4)
    assert resize_grid(codes, (3, 4), (3, 4)) is codes
    constant = torch.full((12, 2), 0.7)
    torch.testing.assert_close(resize_grid(constant, (3, 4), (5, 2)), torch.full((10, 2), 0.7))


def test_resize_grid_stretches_along_the_right_axis() -> None:
    ramp = torch.arange(64.0).repeat_interleave(8)[:, None]
    squeezed = resize_grid(ramp, (64, 8), (32, 8)).reshape(32, 8)
    # Halving a ramp takes the middle of each pair; borders of a bicubic filter apart.
    torch.testing.assert_close(squeezed[2:-2, 3], torch.arange(32.0)[2:-2] * 2 + 0.5)
    assert torch.equal(squeezed, squeezed[:, :1].expand(-1, 8))


def test_resize_grid_names_a_wrong_number_of_codes() -> None:
    with pytest.raises(ValueError, match="197 position codes are no grid of 14 x 14"):
        resize_grid(torch.zeros(197, 4), (14, 14), (10, 10))


def _splitmix_uniform(seed: int, stream: int, index: int) -> float:
    """The same numbers with Python's unbounded integers."""
    wrap = (1 << 64) - 1

    def mix(value: int) -> int:
        value &= wrap
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & wrap
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & wrap
        return value ^ (value >> 31)

    step = 0x9E3779B97F4A7C15
    start = mix(mix(seed + step) + stream)
    return (mix(start + (index + 1) * step) >> 40) / 2**24


def test_clip_uniform_is_splitmix() -> None:
    seeds = [0, 1, -5, 2**63 - 1, -(2**63)]
    drawn = clip_uniform(torch.tensor(seeds), 3, stream=2)
    expected = [[_splitmix_uniform(seed, 2, i) for i in range(3)] for seed in seeds]
    assert drawn.tolist() == expected


def test_clip_uniform_belongs_to_the_clip() -> None:
    seeds = torch.arange(10)
    together = clip_uniform(seeds, 5, stream=0)
    assert torch.equal(clip_uniform(seeds[7:], 5, stream=0), together[7:])
    assert not torch.equal(clip_uniform(seeds, 5, stream=1), together)


def test_clip_uniform_is_even() -> None:
    drawn = clip_uniform(torch.arange(2000), 10, stream=0)
    assert abs(drawn.mean().item() - 0.5) < 0.01
    assert abs(drawn.var().item() - 1 / 12) < 0.003
    assert drawn.flatten().unique().numel() > 19900


def test_patches_match_the_convolution() -> None:
    pictures = torch.randn(2, 3, 8, 12)
    encoder = PatchEncoder(SMALL, GRID)
    by_hand = GRID.patches(pictures) @ encoder.patch_embed.weight.flatten(1).T
    torch.testing.assert_close(encoder.embed(pictures), by_hand + encoder.patch_embed.bias)


def test_patch_grid_refuses_what_does_not_tile() -> None:
    with pytest.raises(ValueError, match="don't tile 10 x 12"):
        PatchGrid(channels=3, size=(10, 12), patch=(4, 4))


def test_mask_keeps_the_smallest_noise() -> None:
    mask = mask_patches(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), ratio=0.5)
    assert mask.keep_BK.tolist() == [[1, 3]]
    assert mask.hidden_BN.tolist() == [[True, False, True, False]]
    assert mask.restore_BN.tolist() == [[3, 0, 2, 1]]


@pytest.mark.parametrize(("ratio", "hidden"), [(0.75, 12), (0.001, 1), (0.999, 15)])
def test_mask_always_shows_and_hides_something(ratio: float, hidden: int) -> None:
    assert mask_patches(torch.rand(3, 16), ratio).hidden_BN.sum(1).tolist() == [hidden] * 3


def test_decoder_sees_nothing_of_hidden_patches() -> None:
    encoder, decoder = PatchEncoder(SMALL, GRID), PatchDecoder(16, SMALL, GRID)
    pictures = torch.rand(1, 3, 8, 12)
    mask = mask_patches(torch.tensor([[0.0, 0.9, 0.8, 0.1, 0.7, 0.2]]), ratio=0.5)
    painted = decoder(encoder.encode_kept(pictures, mask.keep_BK), mask)
    assert painted.shape == (1, 6, 48)
    changed = pictures.clone()
    changed[:, :, :4, 4:] = 0.0  # Patches 1 and 2, both hidden.
    assert torch.equal(painted, decoder(encoder.encode_kept(changed, mask.keep_BK), mask))
    changed[:, :, :4, :4] = 0.0  # Patch 0, seen.
    assert not torch.equal(painted, decoder(encoder.encode_kept(changed, mask.keep_BK), mask))


def test_decoder_puts_seen_patches_back_in_place() -> None:
    """With the blocks taken out, each seen patch's output depends on that patch alone."""
    decoder = PatchDecoder(16, SMALL, GRID)
    decoder.blocks = torch.nn.ModuleList()
    mask = mask_patches(torch.tensor([[0.9, 0.1, 0.8, 0.7, 0.0, 0.6]]), ratio=2 / 3)
    encoded = torch.randn(1, 3, 16)
    painted = decoder(encoded, mask)
    encoded[:, 1] += 1.0  # The token of patch 4, which has the smallest noise.
    moved = (decoder(encoded, mask) != painted).any(dim=2)
    assert moved.tolist() == [[False, False, False, False, True, False]]


def test_hidden_patch_error_by_hand() -> None:
    target = torch.tensor([[[1.0, 3.0], [0.0, 10.0]], [[2.0, 4.0], [0.0, 1.0]]])
    # Normalised with the sample deviation sqrt(2) of [1, 3]: -+ 1 / sqrt(2).
    painted = torch.zeros(2, 2, 2)
    counted = torch.tensor([[True, False], [False, False]])
    error = hidden_patch_error(painted, target, counted)
    torch.testing.assert_close(error, torch.tensor([0.5, 0.0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dim": 10, "num_heads": 4}, "multiple of num_heads"), ({"drop_path": 1.0}, "drop_path")],
)
def test_encoder_config_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**settings)  # type: ignore[arg-type]
