"""MMA-DFER as a method: stages, training step, missing modalities, export."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.contract import ClipBatch, Progress, TensorPredictor, plain_batch
from mien_models.layers.patch_encoder import EncoderConfig
from mien_models.mma_dfer import MmaDfer, MmaDferConfig
from mien_models.mma_dfer.config import FusionConfig, PromptConfig
from mien_models.mma_dfer.fusion import Presence
from mien_models.mma_dfer.losses import classification_loss
from mien_models.mma_dfer.model import JointHead, PatchReadout

CLASSES = ("happy", "sad", "angry")
START = Progress(stage=0, epoch=0, step=0, total_steps=10)
TINY = MmaDferConfig.tiny()
PUBLISHED = dataclasses.replace(
    TINY, audio_padding="silence", missing_modality="silence", drop_audio=0.0, drop_video=0.0
)


def make_batch(size: int = 4, config: MmaDferConfig = TINY, seed: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    side, audio = config.image_size_px, config.audio
    shape = (size, config.num_frames, 3, side, side)
    batch = plain_batch(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        torch.randn(size, audio.num_frames, audio.num_mels, generator=generator),
        torch.randint(80, audio.num_frames, (size,), generator=generator),
    )
    label_B = torch.arange(size) % len(CLASSES)
    return dataclasses.replace(batch, label_B=label_B, seed_B=torch.arange(size) + 100)


def with_faces(batch: ClipBatch, has_face_BT: Tensor) -> ClipBatch:
    view = dataclasses.replace(batch.views[0], has_face_BT=has_face_BT)
    return dataclasses.replace(batch, views=(view,))


def make_method(config: MmaDferConfig = TINY) -> MmaDfer:
    """A network whose exchanges and missing tokens do something."""
    torch.manual_seed(0)
    method = MmaDfer(config, CLASSES).eval()
    for name, parameter in method.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(parameter, 0.8)
        if "missing" in name:
            torch.nn.init.normal_(parameter)
    return method


def logits(method: MmaDfer, batch: ClipBatch) -> Tensor:
    with torch.no_grad():
        return method.predict(batch).logits_BK


# Stages


@pytest.mark.parametrize("profile", ["paper", "robust"])
def test_published_networks_have_one_stage(profile: str) -> None:
    with torch.device("meta"):
        method = MmaDfer(getattr(MmaDferConfig, profile)(), CLASSES)
    stage = method.stage(0)
    assert stage is not None
    assert stage.name == "adapt"
    assert stage.evaluate
    assert method.stage(1) is None
    assert bool(stage.no_decay) == (profile == "robust")


@pytest.mark.parametrize("config", [TINY, PUBLISHED])
def test_every_stage_trains_exactly_what_its_loss_reaches(config: MmaDferConfig) -> None:
    method = make_method(config).train()
    frozen = {}
    for index in range(2):
        method.begin_stage(index)
        stage = method.stage(index)
        assert stage is not None
        names = [name for name, _ in method.named_parameters()]
        for pattern in (*stage.trainable, *stage.no_decay):
            assert any(fnmatchcase(name, pattern) for name in names), pattern
        for name, parameter in method.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, p) for p in stage.trainable))
            parameter.grad = None
        method({"clips": make_batch()}, dataclasses.replace(START, stage=index)).loss.backward()
        reached = {name for name, value in method.named_parameters() if value.grad is not None}
        assert reached == {name for name, value in method.named_parameters() if value.requires_grad}
        frozen[stage.name] = set(names) - reached
    assert not any("blocks" in name for name in frozen["autoencoder"] if "_encoder" in name)
    assert all("_encoder" in name for name in frozen["adapt"])
    assert {n.split(".")[2] for n in frozen["adapt"]} == {
        "cls_token",
        "patch_embed",
        "blocks",
        "norm",
    }


def test_decay_spares_everything_but_matrices() -> None:
    method = MmaDfer(TINY, CLASSES)
    method.begin_stage(1)
    stage = method.stage(1)
    assert stage is not None
    for name, parameter in method.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in stage.trainable):
            spared = any(fnmatchcase(name, pattern) for pattern in stage.no_decay)
            is_vector = parameter.ndim < 2 or "prompt" in name
            assert spared == (is_vector or name.endswith(("positions", "cls_token"))), name


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": PromptConfig(per_stage=0)},
        {"fusion": FusionConfig(width=8, blocks="none")},
        {"fusion": FusionConfig(width=8, blocks="every_second", operator="one_way")},
        {"fusion": FusionConfig(width=8, operator="cls")},
        {"fusion": FusionConfig(width=8, operator="per_frame_mean")},
        {"prompts": PromptConfig(stage_period=3)},
        {"temporal": dataclasses.replace(TINY.temporal, depth=2)},
        {"temporal": dataclasses.replace(TINY.temporal, depth=0)},
        {"prompts": PromptConfig(progressive=False)},
        {"train_positions": False},
    ],
)
def test_ablations_train(changes: dict[str, object]) -> None:
    config = dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]
    method = MmaDfer(config, CLASSES)
    method.begin_stage(1)
    stage = method.stage(1)
    assert stage is not None
    for pattern in stage.trainable:
        assert any(fnmatchcase(name, pattern) for name, _ in method.named_parameters()), pattern
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, p) for p in stage.trainable))
    method.train()({"clips": make_batch()}, START).loss.backward()
    reached = {name for name, value in method.named_parameters() if value.grad is not None}
    assert reached == {name for name, value in method.named_parameters() if value.requires_grad}


def test_without_a_temporal_block_frames_are_averaged() -> None:
    temporal = dataclasses.replace(TINY.temporal, depth=0)
    method = MmaDfer(dataclasses.replace(TINY, temporal=temporal), CLASSES).eval()
    video_BTD, audio_BD = torch.randn(2, 3, 8), torch.randn(2, 8)
    head = JointHead(8, temporal, 3, learns_missing=False)
    joint = F.linear(video_BTD + audio_BD[:, None], head.project.weight, head.project.bias)

    torch.testing.assert_close(head(video_BTD, audio_BD, Presence()), joint.mean(dim=1))
    assert method.predict(make_batch()).logits_BK.isfinite().all()


def test_rare_classes_can_be_drawn_as_often_as_frequent_ones() -> None:
    method = MmaDfer(dataclasses.replace(TINY, sampler="class_uniform"), CLASSES)
    stages = [method.stage(index) for index in range(2)]

    assert [stage.streams["clips"].sampler for stage in stages if stage] == [
        "plain",
        "class_uniform",
    ]
    assert method.prediction_stream().sampler == "plain"


def test_shipped_weights_hold_no_decoder() -> None:
    method = MmaDfer(TINY, CLASSES)
    fresh = set(method.state_dict())
    method.begin_stage(0)
    assert {name.split(".")[0] for name in set(method.state_dict()) - fresh} == {"pretraining"}
    method.begin_stage(1)
    assert set(method.state_dict()) == fresh


def test_streams_ask_for_sound_and_the_configured_frames() -> None:
    method = MmaDfer(TINY, CLASSES)
    first, second = method.stage(0), method.stage(1)
    assert first is not None
    assert second is not None
    assert first.streams["clips"].labelled is None
    assert second.streams["clips"].labelled is True
    stream = method.prediction_stream()
    assert stream.audio == TINY.audio
    assert stream.image_size_px == TINY.image_size_px
    assert (stream.views[0].sampling, stream.views[0].augmentation) == ("segments", None)


def test_both_stages_learn_four_clips() -> None:
    config = dataclasses.replace(TINY, drop_audio=0.0, drop_video=0.0, label_smoothing=0.0)
    torch.manual_seed(0)
    method = MmaDfer(config, CLASSES).train()
    batch = make_batch()
    for index in range(2):
        method.begin_stage(index)
        stage = method.stage(index)
        assert stage is not None
        chosen = [
            value
            for name, value in method.named_parameters()
            if any(fnmatchcase(name, pattern) for pattern in stage.trainable)
        ]
        optimizer = torch.optim.AdamW(chosen, lr=2e-3)
        losses = []
        for _ in range(40):
            loss = method({"clips": batch}, START).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < (0.9 if index == 0 else 0.05) * losses[0], losses
    assert logits(method.eval(), batch).argmax(1).tolist() == batch.label_B.tolist()


def test_autoencoder_ignores_padding_missing_sound_and_frames_without_face() -> None:
    method = MmaDfer(TINY, CLASSES).train()
    method.begin_stage(0)
    batch = make_batch()
    faces = batch.views[0].has_face_BT.clone()
    faces[:, 1] = False
    has_audio = torch.tensor([True, True, True, False])
    batch = dataclasses.replace(with_faces(batch, faces), has_audio_B=has_audio)
    video, audio = batch.video_BTCHW.clone(), batch.audio_BFM
    assert audio is not None
    video[:, 1] = 0
    audio = audio.clone()
    audio[3] = 7.0
    audio[0, int(batch.audio_frames_B[0]) :] = 7.0
    view = dataclasses.replace(batch.views[0], video_BTCHW=video)
    changed = dataclasses.replace(batch, views=(view,), audio_BFM=audio)
    assert method({"clips": changed}, START).loss == method({"clips": batch}, START).loss


def test_masks_and_dropped_modalities_belong_to_the_clip() -> None:
    """Loss of a batch = mean of the losses of its halves, as two workers would compute them."""
    method = make_method().train()
    batch = make_batch(8)
    for index in range(2):
        method.begin_stage(index)
        whole = method({"clips": batch}, START).loss
        halves = [method({"clips": batch.rows(i, i + 4)}, START).loss for i in (0, 4)]
        torch.testing.assert_close(whole, torch.stack(halves).mean())


def test_modality_dropout_takes_the_configured_shares_one_at_a_time() -> None:
    config = dataclasses.replace(TINY, drop_audio=0.3, drop_video=0.2)
    method = MmaDfer(config, CLASSES)
    batch = dataclasses.replace(make_batch(1), seed_B=torch.arange(4000))
    batch = with_faces(batch, torch.ones(4000, 4, dtype=torch.bool))
    batch = dataclasses.replace(
        batch,
        audio_frames_B=torch.full((4000,), 100),
        has_audio_B=torch.ones(4000, dtype=torch.bool),
    )
    presence = method._presence(batch, drops=True)
    assert presence.audio_B is not None
    assert presence.face_BT is not None
    has_video = presence.face_BT.any(1)
    assert (~presence.audio_B).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (~has_video).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (presence.audio_B | has_video).all()


def test_prediction_never_drops_a_modality() -> None:
    config = dataclasses.replace(TINY, drop_audio=0.5, drop_video=0.5)
    method = make_method(config)
    batch = make_batch()
    other_seeds = dataclasses.replace(batch, seed_B=batch.seed_B + 50)
    expected = logits(make_method(), batch)
    assert torch.equal(logits(method, batch), expected)
    assert torch.equal(logits(method, other_seeds), expected)


# Missing modalities


@pytest.mark.parametrize("operator", ["mean", "cls", "per_frame_mean", "one_way"])
def test_what_stands_where_something_is_missing_changes_nothing(operator: str) -> None:
    fusion = dataclasses.replace(TINY.fusion, operator=operator)  # type: ignore[arg-type]
    method = make_method(dataclasses.replace(TINY, fusion=fusion))
    batch = make_batch()
    faces = torch.ones(4, 4, dtype=torch.bool)
    faces[0] = False  # No picture, ...
    faces[1, 2] = False  # ... one frame without a face, ...
    batch = dataclasses.replace(
        with_faces(batch, faces), has_audio_B=torch.tensor([True, True, False, True])
    )
    video, audio = batch.video_BTCHW.clone(), batch.audio_BFM
    assert audio is not None
    video[0] = 255 - video[0]
    video[1, 2] = 255 - video[1, 2]
    audio = audio.clone()
    audio[2] = torch.nan  # ... no sound, ...
    audio[3, int(batch.audio_frames_B[3]) :] = torch.inf  # ... padding.
    view = dataclasses.replace(batch.views[0], video_BTCHW=video)
    changed = dataclasses.replace(batch, views=(view,), audio_BFM=audio)
    before, after = logits(method, batch), logits(method, changed)
    assert before.isfinite().all()
    assert torch.equal(before, after)
    shown = dataclasses.replace(batch, has_audio_B=torch.ones(4, dtype=torch.bool))
    moved = (logits(method, with_faces(shown, torch.ones_like(faces))) != before).any(1)
    assert moved.tolist() == [True, True, True, False]


def test_each_modality_alone_ignores_the_other() -> None:
    method = make_method()
    batch, other = make_batch(), make_batch(seed=1)
    mute = dataclasses.replace(batch, has_audio_B=torch.zeros(4, dtype=torch.bool))
    blind = with_faces(batch, torch.zeros(4, 4, dtype=torch.bool))
    other_sound = dataclasses.replace(
        mute, audio_BFM=other.audio_BFM, audio_frames_B=other.audio_frames_B
    )
    assert torch.equal(logits(method, other_sound), logits(method, mute))
    other_picture = with_faces(
        dataclasses.replace(batch, views=other.views), blind.views[0].has_face_BT
    )
    assert torch.equal(logits(method, other_picture), logits(method, blind))
    neither = logits(method, dataclasses.replace(blind, has_audio_B=mute.has_audio_B))
    assert torch.equal(neither, neither[:1].expand(4, -1))
    assert not torch.equal(logits(method, mute), logits(method, blind))


def test_a_batch_without_audio_tensor_is_one_without_sound() -> None:
    method = make_method()
    batch = make_batch()
    mute = dataclasses.replace(
        batch,
        has_audio_B=torch.zeros(4, dtype=torch.bool),
        audio_frames_B=torch.zeros(4, dtype=torch.int64),
    )
    video_only = dataclasses.replace(mute, audio_BFM=None)
    assert torch.equal(logits(method, video_only), logits(method, mute))


def test_published_padding_is_a_log_energy_of_zero() -> None:
    method = make_method(PUBLISHED)
    batch = dataclasses.replace(make_batch(2), has_audio_B=torch.tensor([True, False]))
    spectrogram = method._spectrogram(batch)
    frames = int(batch.audio_frames_B[0])
    assert batch.audio_BFM is not None
    assert torch.equal(spectrogram[0, :frames], batch.audio_BFM[0, :frames])
    torch.testing.assert_close(spectrogram[0, frames:].unique(), torch.tensor([0.46703262]))
    torch.testing.assert_close(spectrogram[1].unique(), torch.tensor([0.46703262]))


def test_published_network_hears_its_padding() -> None:
    method = make_method(PUBLISHED)
    batch = make_batch()
    shorter = dataclasses.replace(batch, audio_frames_B=batch.audio_frames_B - 16)
    assert not torch.equal(logits(method, shorter), logits(method, batch))


# Prediction


def test_pixels_are_scaled_as_configured() -> None:
    batch = make_batch(1)
    plain = dataclasses.replace(TINY, input_scale="unit", motion_gain=None, border_px=2)
    unit = make_method(plain)._pixels(batch)
    assert torch.equal(unit, batch.video_BTCHW[..., 2:62, 2:62].float() / 255)
    scaled = make_method(dataclasses.replace(plain, input_scale="imagenet"))._pixels(batch)
    expected = (batch.video_BTCHW[0, 0, 2, 2, 2].item() / 255 - 0.406) / 0.225
    assert scaled[0, 0, 2, 0, 0].item() == pytest.approx(expected, rel=1e-5)
    own = make_method(dataclasses.replace(plain, input_scale="frame"))._pixels(batch)
    torch.testing.assert_close(own.mean(dim=(2, 3, 4)), torch.zeros(1, 4), atol=1e-5, rtol=0)
    assert own.std(dim=(2, 3, 4)).min() > 0.5


def test_motion_channels_are_what_differs_from_the_frames_with_a_face() -> None:
    batch = make_batch(1)
    has_face_BT = torch.tensor([[True, True, False, True]])
    config = dataclasses.replace(TINY, input_scale="unit", motion_gain=3.0, border_px=2)
    pixels = make_method(config)._pixels(with_faces(batch, has_face_BT))
    frames = batch.video_BTCHW[0, :, :, 2:62, 2:62].float() / 255
    mean = (frames[0] + frames[1] + frames[3]) / 3
    torch.testing.assert_close(pixels[0, 1, :3], frames[1])
    torch.testing.assert_close(pixels[0, 1, 3:], 3.0 * (frames[1] - mean))


def test_the_patch_readout_weighs_each_place_by_itself() -> None:
    torch.manual_seed(0)
    readout = PatchReadout(8, 2, 3)
    tokens = torch.randn(1, 5, 8)  # class token, three patches, a prompt
    valid = torch.tensor([[True, True, False, True, True]])
    parts = [readout.squeeze(tokens[0, 1]), torch.zeros(2), readout.squeeze(tokens[0, 3])]
    torch.testing.assert_close(readout(tokens, valid)[0], readout.join(torch.cat(parts)))
    swapped = tokens[:, [0, 3, 2, 1, 4]]
    assert not torch.allclose(readout(swapped, None), readout(tokens, None))


@pytest.mark.parametrize("config", [TINY, PUBLISHED], ids=["tiny", "published"])
def test_export_gives_the_same_logits(config: MmaDferConfig) -> None:
    config = dataclasses.replace(config, encoder=EncoderConfig(dim=32, depth=2, num_heads=2))
    predictor = TensorPredictor(make_method(config)).eval()
    arguments = [_tensors(make_batch(size, config, seed=size)) for size in (3, 5, 1)]
    size = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        predictor, arguments[0], dynamic_shapes=tuple({0: size} for _ in range(4))
    )
    module = exported.module()
    for inputs in arguments:
        with torch.no_grad():
            torch.testing.assert_close(module(*inputs), predictor(*inputs), rtol=1e-5, atol=1e-5)


def _tensors(batch: ClipBatch) -> tuple[Tensor, ...]:
    assert batch.audio_BFM is not None
    has_audio = batch.has_audio_B.clone()
    has_audio[0] = False
    return batch.video_BTCHW, batch.audio_BFM, batch.audio_frames_B, has_audio


def test_features_are_what_the_classifier_sees() -> None:
    method = make_method()
    prediction = method.predict(make_batch())
    assert prediction.features_BD.shape == (4, TINY.temporal.dim)
    torch.testing.assert_close(
        method.network.classifier(prediction.features_BD), prediction.logits_BK
    )


# Loss and settings


def test_loss_by_hand() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    label = torch.tensor([0, 0])
    first, second = 1.3132617, 0.1269280  # log(1 + e), log(1 + e^-2)
    plain = classification_loss(values, label)
    assert plain.item() == pytest.approx((first + second) / 2, abs=1e-6)
    weighted = classification_loss(values, label, class_weights_K=torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx(3 * (first + second) / 2, abs=1e-5)
    smooth = classification_loss(values[:1], label[:1], label_smoothing=0.2)
    assert smooth.item() == pytest.approx(0.9 * first + 0.1 * (first - 1.0), abs=1e-6)


def test_search_space_names_settings_and_legal_values() -> None:
    for name, span in MmaDfer.search_space().items():
        assert span.choices or span.low is not None
        for value in span.choices or (span.low, span.high):
            assert _replace_dotted(MmaDferConfig.robust(), name.split("."), value) is not None


def _replace_dotted(config: object, path: list[str], value: object) -> object:
    first, *rest = path
    current = getattr(config, first)
    if rest:
        value = _replace_dotted(current, rest, value)
    return dataclasses.replace(config, **{first: value})  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size_px": 62}, "don't tile 34 x 34"),
        ({"audio_patch": (16, 48)}, "don't tile 192 x 64"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"drop_audio": 0.7, "drop_video": 0.7}, "together at most 1"),
        ({"missing_modality": "silence"}, "need missing_modality='learned'"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]


def test_unknown_fused_blocks() -> None:
    fusion = FusionConfig(blocks="odd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="last_half"):
        dataclasses.replace(TINY, fusion=fusion)


def test_class_weights_must_fit_the_classes() -> None:
    config = dataclasses.replace(TINY, class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="3 classes with class_weights"):
        MmaDfer(config, CLASSES)
