"""Grad-CAM and its checks: against a reference library, and on networks that look where we know."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from mien_models.contract import (
    ClipBatch,
    Method,
    PictureLayer,
    Prediction,
    StreamSpec,
    effect_of,
    plain_batch,
    without_audio,
)
from mien_models.explain import (
    Heat,
    deletion,
    fill_in,
    heat_maps,
    on_picture,
    overlap,
    randomisation_similarity,
    removal,
    road,
    share_inside,
)
from mien_models.layers.face_trunk import ConvTrunk, picture_layer, timm_trunk

SIZE = 32


class Reader(Method):
    """A trunk on every frame; logits are the mean over frames of a linear layer."""

    def __init__(self, trunk: nn.Module, num_classes: int = 3, border_px: int = 0) -> None:
        super().__init__()
        self.classes = tuple(f"class{number}" for number in range(num_classes))
        self.trunk = trunk
        self.border_px = border_px
        self.read = nn.Linear(int(trunk.num_features), num_classes)

    def predict(self, batch: ClipBatch) -> Prediction:
        border = self.border_px
        inner = batch.video_BTCHW[..., border : SIZE - border, border : SIZE - border]
        features = self.trunk(inner.flatten(0, 1).float() / 255).unflatten(0, inner.shape[:2])
        logits = self.read(features).mean(dim=1)
        if batch.audio_BFM is not None:
            logits = logits + batch.audio_BFM.sum(dim=(1, 2))[:, None] * torch.eye(3)[0]
        return Prediction(logits_BK=logits, features_BD=features.mean(dim=1))

    def picture_layer(self) -> PictureLayer:
        return picture_layer(self.trunk, border_px=self.border_px)

    def stage(self, index):
        return None

    def forward(self, batches, progress):
        raise NotImplementedError

    def prediction_stream(self) -> StreamSpec:
        return StreamSpec(image_size_px=SIZE)

    @classmethod
    def search_space(cls):
        return {}


class Corner(nn.Module):
    """Features that are the brightness of the upper left quarter alone, behind a map."""

    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.AvgPool2d(4)

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        return self.stages(pictures_NCHW)[:, :, :4, :4].mean(dim=(1, 2, 3))[:, None]


def noise(clips: int = 2, frames: int = 3, seed: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, frames, 3, SIZE, SIZE)
    return plain_batch(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))


def corner_reader() -> Reader:
    method = Reader(Corner(), num_classes=3)
    with torch.no_grad():
        method.read.weight.copy_(torch.tensor([[2.0], [-2.0], [0.0]]))
        method.read.bias.zero_()
    return method


def test_maps_equal_captums() -> None:
    torch.manual_seed(0)
    method = Reader(ConvTrunk(3, widths=(6, 8), grid=2, dim=5)).eval()
    batch = noise()
    heat = heat_maps(method, batch)

    def logits(pictures_NCHW: Tensor) -> Tensor:
        return method.read(method.trunk(pictures_NCHW))

    frames = batch.video_BTCHW.flatten(0, 1).float() / 255
    reference = LayerGradCam(logits, method.trunk.stages)
    # A frame's share of its clip's logit is a third, which scales all maps of a clip alike.
    target = heat.class_B.repeat_interleave(3)
    expected = reference.attribute(frames, target=target.tolist(), relu_attributions=True)
    expected = expected.detach()[:, 0].unflatten(0, (2, 3))
    expected = expected / expected.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(heat.heat_BSRC, expected, rtol=1e-4, atol=1e-5)
    assert heat.frames_BS.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize(
    ("name", "grid"), [("resnet10t", (1, 1)), ("vit_tiny_patch16_224", (2, 2))]
)
def test_networks_of_timm_name_their_last_places(name: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    method = Reader(timm_trunk(name, SIZE))
    heat = heat_maps(method, noise())
    assert heat.heat_BSRC.shape == (2, 3, *grid)
    assert method.training


def test_heat_lies_where_the_network_looks() -> None:
    method, batch = corner_reader(), noise()
    heat = heat_maps(method, batch, torch.tensor([0, 0]))
    large = on_picture(heat, method.picture_layer(), SIZE)
    corner = torch.zeros_like(large, dtype=torch.bool)
    corner[..., :16, :16] = True
    share_B, area_B = share_inside(large, corner)
    # Grad-CAM weighs whole features: the pooled map is bright everywhere, the gradient is not.
    assert torch.equal(area_B, torch.full((2,), 0.25))
    assert share_B.shape == (2,)
    nothing = heat_maps(method, batch, torch.tensor([1, 1]))
    assert torch.equal(nothing.heat_BSRC, torch.zeros_like(nothing.heat_BSRC))
    assert torch.isnan(share_inside(nothing.heat_BSRC, corner[..., ::4, ::4])[0]).all()


def test_shares_inside_regions_by_hand() -> None:
    heat = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]])
    inside = torch.tensor([[[[True, False], [False, True]]]])
    share_B, area_B = share_inside(heat, inside)
    assert (share_B.item(), area_B.item()) == (0.75, 0.5)


def test_a_border_that_was_cut_off_has_no_heat() -> None:
    torch.manual_seed(1)
    method = Reader(ConvTrunk(3, widths=(6,), grid=2, dim=5), border_px=4)
    large = on_picture(heat_maps(method, noise()), method.picture_layer(), SIZE)
    assert large.shape == (2, 3, SIZE, SIZE)
    assert large[..., 4:28, 4:28].max() > 0.5
    frame = torch.ones(SIZE, SIZE, dtype=torch.bool)
    frame[4:28, 4:28] = False
    assert (large[..., frame] == 0).all()


def test_taking_the_hottest_places_away_is_missed_most() -> None:
    """The bright corner alone decides: maps of it beat a random order, maps of another lose."""
    method = corner_reader()
    batch = noise(clips=4)
    video = torch.full_like(batch.video_BTCHW, 40)
    video[..., :16, :16] = 255
    batch = plain_batch(video)
    heat = heat_maps(method, batch, torch.zeros(4, dtype=torch.int64))
    found = deletion(method, batch, heat, shares=(0.1, 0.2), seed=3)
    assert found.gain > 0.01
    elsewhere = dataclasses.replace(heat, heat_BSRC=heat.heat_BSRC.flip(2, 3))
    assert deletion(method, batch, elsewhere, shares=(0.1, 0.2), seed=3).gain < 0


def without_noise(monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    monkeypatch.setattr(removal, "_NOISE", 0.0)
    return torch.Generator()


def test_a_missing_pixel_is_the_weighted_mean_of_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = without_noise(monkeypatch)
    picture = torch.tensor([[12, 60, 24], [90, 255, 30], [36, 120, 48]], dtype=torch.uint8)
    gone = torch.zeros(1, 3, 3, dtype=torch.bool)
    gone[0, 1, 1] = True
    found = fill_in(picture[None, None], gone, generator)
    # (12 + 24 + 36 + 48) / 12 + (60 + 90 + 30 + 120) / 6
    assert found[0, 0].tolist() == [[12, 60, 24], [90, 60, 30], [36, 120, 48]]
    gone[0, 1, 1], gone[0, 0, 0] = False, True
    # A corner has two neighbours beside it and one across: 2 x (60 + 90 + 255 / 2) / 5.
    assert fill_in(picture[None, None], gone, generator)[0, 0, 0, 0] == 111


def test_missing_pixels_beside_each_other_ask_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the system of equations written out and solved by numpy, with other pictures."""
    generator = without_noise(monkeypatch)
    size = 12
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (3, 2, size, size), generator=draw, dtype=torch.uint8)
    gone = torch.rand(3, size, size, generator=draw) < 0.7
    found = fill_in(pictures, gone, generator)
    for picture_CHW, gone_HW, filled_CHW in zip(pictures, gone, found, strict=True):
        for values_HW, filled_HW in zip(picture_CHW, filled_CHW, strict=True):
            expected = solved(values_HW.double().numpy(), gone_HW.numpy())
            assert np.abs(filled_HW.numpy() - expected).max() <= 0.51


def solved(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    places = {place: number for number, place in enumerate(zip(*np.nonzero(gone), strict=True))}
    matrix, right = np.zeros((len(places), len(places))), np.zeros(len(places))
    for (row, column), number in places.items():
        for down, across in itertools.product((-1, 0, 1), repeat=2):
            other = (row + down, column + across)
            if (down, across) == (0, 0) or not all(0 <= x < len(values) for x in other):
                continue
            weight = 1 / 12 if down and across else 1 / 6
            matrix[number, number] += weight
            if other in places:
                matrix[number, places[other]] -= weight
            else:
                right[number] += weight * values[other]
    filled = values.copy()
    filled[gone] = np.linalg.solve(matrix, right)
    return filled


def test_a_ramp_is_continued_and_an_empty_picture_has_one_colour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = without_noise(monkeypatch)
    ramp = (torch.arange(40) * 6).to(torch.uint8).expand(1, 3, 40, 40)
    hole = torch.zeros(1, 40, 40, dtype=torch.bool)
    hole[:, 5:30, 8:33] = True
    found = fill_in(torch.where(hole[:, None], 255, ramp).to(torch.uint8), hole, generator)
    assert (found.int() - ramp.int()).abs().max() <= 1
    nothing = fill_in(noise(1, 1).video_BTCHW[0], torch.ones(1, SIZE, SIZE).bool(), generator)
    assert (nothing.flatten(2).amax(dim=2) == nothing.flatten(2).amin(dim=2)).all()


def test_noise_is_on_what_was_filled_in_alone() -> None:
    picture = torch.full((1, 1, SIZE, SIZE), 100, dtype=torch.uint8)
    gone = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    gone[:, :, : SIZE // 2] = True
    found = fill_in(picture, gone, torch.Generator().manual_seed(0)).float()
    assert (found[..., SIZE // 2 :] == 100).all()
    assert found[..., : SIZE // 2].std().item() == pytest.approx(2.55, rel=0.1)


def test_what_is_taken_away_first_is_the_hottest_of_what_is_seen() -> None:
    """A network that sees no border: the shares are of the inner pictures, in the map's order."""
    method = Reader(Corner(), num_classes=1, border_px=8)
    taken: list[Tensor] = []

    def watch(pictures: Tensor, gone: Tensor) -> Tensor:
        taken.append(gone)
        return pictures

    batch = noise(clips=1, frames=2)
    heat_BSRC = torch.zeros(1, 2, 2, 2)
    heat_BSRC[0, 1, 0, 1] = 1.0
    heat = Heat(
        class_B=torch.zeros(1, dtype=torch.int64),
        logits_BK=torch.zeros(1, 1),
        frames_BS=torch.tensor([[0, 1]]),
        heat_BSRC=heat_BSRC,
    )
    removal._probabilities(method, batch, heat, (0.05, 0.5), watch)
    assert [gone.shape for gone in taken] == [(2, 16, 16)] * 2
    assert [int(gone.sum()) for gone in taken] == [26, 256]
    assert taken[0][1, :8, 8:].sum() == 26


def test_removing_and_debiasing_tells_right_maps_from_wrong_ones() -> None:
    """The bright corner alone decides; what is around it is dark."""
    method = corner_reader()
    video = torch.full((4, 3, 3, SIZE, SIZE), 40, dtype=torch.uint8)
    video[..., :16, :16] = 255
    batch = plain_batch(video)
    heat = heat_maps(method, batch, torch.zeros(4, dtype=torch.int64))
    right = road(method, batch, heat, shares=(0.2, 0.3))
    assert right.gain > 0.02
    assert right.hottest_first[0] < right.coldest_first[0]

    def gain_of(heat_BSRC: Tensor) -> float:
        other = dataclasses.replace(heat, heat_BSRC=heat_BSRC)
        return road(method, batch, other, shares=(0.2, 0.3)).gain

    assert gain_of(-heat.heat_BSRC) == pytest.approx(-right.gain, abs=0.01)
    assert gain_of(heat.heat_BSRC.flip(2, 3)) < 0.2 * right.gain
    assert abs(gain_of(torch.ones_like(heat.heat_BSRC))) < 0.2 * right.gain


def test_overlap_is_a_cosine() -> None:
    one = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    other = torch.tensor([[[[0.0, 2.0]]], [[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    assert torch.allclose(overlap(one, other), torch.tensor([0.0, 0.5**0.5, 0.0]))


def test_maps_that_forget_nothing_are_found_out() -> None:
    """A map made of a layer without weights stays when the weights are shuffled."""
    blind = Reader(Corner(), num_classes=1)
    with torch.no_grad():
        blind.read.weight.fill_(2.0)
    batch = noise()
    class_B = torch.zeros(2, dtype=torch.int64)
    same = randomisation_similarity(blind, batch, heat_maps(blind, batch, class_B))
    assert same == pytest.approx(1.0, abs=1e-5)
    torch.manual_seed(2)
    learned = Reader(ConvTrunk(3, widths=(8, 12), grid=2, dim=6))
    weights = {name: value.clone() for name, value in learned.state_dict().items()}
    changed = randomisation_similarity(learned, batch, heat_maps(learned, batch, class_B))
    assert changed < 0.9
    assert all(torch.equal(weights[name], value) for name, value in learned.state_dict().items())


def test_the_effect_of_sound_is_what_it_adds() -> None:
    method = corner_reader()
    video = torch.zeros(2, 3, 3, SIZE, SIZE, dtype=torch.uint8)
    sound = torch.tensor([1.0, -1.0]).view(2, 1, 1)
    batch = plain_batch(video, sound)
    first_B = torch.zeros(2, dtype=torch.int64)
    given_BK = method.predict(batch).logits_BK
    effect = effect_of(method, batch, without_audio, logits_BK=given_BK, class_B=first_B)
    logits = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    expected = logits.log_softmax(dim=1)[:, 0] - torch.tensor(1 / 3).log()
    assert torch.allclose(effect, expected, atol=1e-6)


def test_a_method_without_such_a_layer_says_so() -> None:
    method = Reader(Corner())
    method.picture_layer = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="names no layer"):
        heat_maps(method, noise())
