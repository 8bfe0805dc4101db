"""Random changes to a clip's frames: what is drawn, and what is left alone."""

from __future__ import annotations

import colorsys

import pytest
import torch

from mien.stream.augment import augment_video
from mien_models.contract import Augmentation

RANDOM = torch.Generator().manual_seed(0)
CLIP = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=RANDOM)


def hue_of(pixel_3: torch.Tensor) -> float:
    return colorsys.rgb_to_hsv(*(pixel_3.double() / 255).tolist())[0]


def test_hue_turns_all_frames_alike_and_leaves_grey() -> None:
    red = torch.tensor([200, 40, 40], dtype=torch.uint8)[None, :, None, None].expand(3, 3, 8, 8)
    turned = [augment_video(red, Augmentation(hue=0.1), seed=seed) for seed in range(20)]
    shifts = []
    for clip in turned:
        assert torch.equal(clip, clip[:1, :, :1, :1].expand_as(clip))
        shift = hue_of(clip[0, :, 0, 0])
        shifts.append(shift - (shift > 0.5))
    assert min(shifts) < -0.03
    assert max(shifts) > 0.03
    # Up to a tenth of the colour circle; a level of 255 is 0.001 of it here.
    assert max(map(abs, shifts)) < 0.102
    grey = CLIP[:, :1].expand_as(CLIP)
    assert torch.equal(augment_video(grey, Augmentation(hue=0.5), seed=1), grey)


@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation", "hue"])
def test_one_seed_is_one_draw_of_each_colour_change(what: str) -> None:
    change = Augmentation(**{what: 0.4})
    one, again, other = (augment_video(CLIP, change, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, CLIP)
    assert not torch.equal(one, other)
