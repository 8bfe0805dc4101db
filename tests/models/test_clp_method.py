"""CLP as a method: stages, what trains, what is let go, monitors, prediction, settings."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.clp import Clp, ClpConfig
from mien_models.clp.centring import RunningWhitening
from mien_models.clp.config import (
    BP4D_UNITS,
    CollapseConfig,
    PretrainConfig,
    ReadoutConfig,
    ReconstructionConfig,
    TemporalConfig,
    TrunkConfig,
    UnitConfig,
)
from mien_models.clp.monitor import CollapsedError, CollapseMonitor
from mien_models.clp.trunks import FrozenBatchNorm2d, build_trunk
from mien_models.clp.units import chosen_frames
from mien_models.contract import ClipBatch, Progress, plain_batch

FIRST = Progress(stage=0, epoch=1, step=0, total_steps=10)
SMALL = dataclasses.replace(
    ClpConfig.tiny(),
    image_size_px=16,
    border_px=0,
    trunk=TrunkConfig(name="conv", widths=(6, 8), grid=2, dim=8),
    units=UnitConfig(names=("AU1", "AU12"), intensity_weight=0.5),
)


def make(**changes: object) -> Clp:
    torch.manual_seed(0)
    return Clp(dataclasses.replace(SMALL, **changes), ("happy", "sad"))  # type: ignore[arg-type]


def make_batch(clips: int = 4, frames: int = 3) -> ClipBatch:
    random = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (clips, frames, 3, 16, 16), dtype=torch.uint8, generator=random)
    batch = plain_batch(video, clip_ids=tuple(map(str, range(clips))))
    label = torch.arange(clips) % 2
    return dataclasses.replace(
        batch,
        label_B=label,
        soft_label_BK=F.one_hot(label, 2).float(),
        action_units_BTU=5 * torch.rand(clips, frames, 2, generator=random),
    )


def names_of(method: Clp) -> list[str]:
    stages, index = [], 0
    while (stage := method.stage(index)) is not None:
        stages.append(stage.name)
        index += 1
    return stages


def test_stages_by_setting() -> None:
    assert names_of(make()) == ["pretrain", "probe", "finetune"]
    assert names_of(make(finetune=None)) == ["pretrain", "probe"]
    assert names_of(make(pretrain=None, probe=None)) == ["finetune"]


def test_labels_are_only_asked_for_when_features_are_read_out() -> None:
    method = make(probe=ReadoutConfig(clip_share=0.05))
    pretrain, probe = method.stage(0), method.stage(1)
    assert pretrain is not None
    assert probe is not None
    clips = pretrain.streams["clips"]
    assert clips.labelled is None
    assert not clips.action_units
    assert clips.clip_share == 1
    assert clips.views[1].same_frames_as == 0
    assert not pretrain.evaluate
    assert probe.streams["clips"].clip_share == 0.05
    assert probe.streams["clips"].action_units == ("AU1", "AU12")
    # The test is never cut.
    assert method.prediction_stream().clip_share == 1
    assert method.prediction_stream().action_units == method.action_units


def test_labels_don_t_reach_pretraining() -> None:
    batch = make_batch()
    batch = dataclasses.replace(
        batch,
        subject_B=torch.arange(4),
        views=(dataclasses.replace(batch.views[0], frame_times_BT=torch.arange(3.0).expand(4, 3)),)
        * 2,
    )
    other = dataclasses.replace(
        batch,
        label_B=1 - batch.label_B,
        soft_label_BK=batch.soft_label_BK.flip(1),
        action_units_BTU=None,
    )
    losses = [make()({"clips": b}, FIRST).loss.item() for b in (batch, other)]
    assert losses[0] == losses[1] != 0


def test_a_probe_leaves_the_encoder_alone_and_fine_tuning_does_not() -> None:
    method = make()
    for index, is_tuned in ((1, False), (2, True)):
        stage = method.stage(index)
        assert stage is not None
        assert any(name.startswith("network.encoder") for name in stage.trainable) == is_tuned
    probe = method.stage(1)
    assert probe is not None
    assert all(name.startswith("readout.") for name in probe.no_decay)


def test_what_only_pretraining_needs_is_not_shipped() -> None:
    method = make()
    assert any(key.startswith("pretraining.dictionary") for key in method.state_dict())
    method.begin_stage(0)
    assert method.pretraining is not None
    method.begin_stage(1)
    kept = {key.split(".")[0] + "." + key.split(".")[1] for key in method.state_dict()}
    assert kept == {"network.encoder", "readout.norm", "readout.classes", "readout.units",
                    "readout.intensity", "counts.present_U", "counts.coded_U"}  # fmt: skip


def test_frames_of_a_clip_don_t_read_each_other() -> None:
    method = make().train()
    view = make_batch(clips=1, frames=4).views[0]
    together = method.network.encoder(view.video_BTCHW, view.has_face_BT)
    alone = method.network.encoder(view.video_BTCHW[:, 2:3], view.has_face_BT[:, 2:3])
    torch.testing.assert_close(alone[:, 0], together[:, 2])


def test_missing_units_and_hidden_faces_teach_nothing() -> None:
    method = make(pretrain=None, expression_weight=0.0).train()
    batch = make_batch()
    assert batch.action_units_BTU is not None
    nothing = torch.full_like(batch.action_units_BTU, torch.nan)
    missing = dataclasses.replace(batch, action_units_BTU=nothing)
    assert method({"clips": missing}, FIRST).loss.item() == 0
    faceless = dataclasses.replace(
        batch.views[0], has_face_BT=torch.zeros_like(batch.views[0].has_face_BT)
    )
    hidden = dataclasses.replace(batch, views=(faceless,))
    assert method({"clips": hidden}, FIRST).loss.item() == 0
    assert method.counts.coded_U.tolist() == [0, 0]
    assert method({"clips": batch}, FIRST).loss.item() > 0
    assert method.counts.coded_U.tolist() == [12, 12]


def test_a_share_of_the_frames_is_the_same_every_time_and_within_a_larger_one() -> None:
    clips, times = tuple(f"c{n}" for n in range(200)), torch.arange(10.0).expand(200, 10) / 25
    tenth, half = (chosen_frames(clips, times, share) for share in (0.1, 0.5))
    assert torch.equal(tenth, chosen_frames(clips, times, 0.1))
    assert not (tenth & ~half).any()
    # Of 2,000 frames: three standard deviations of a fair draw.
    assert tenth.sum().item() == pytest.approx(200, abs=3 * (2000 * 0.1 * 0.9) ** 0.5)
    assert half.sum().item() == pytest.approx(1000, abs=3 * (2000 * 0.25) ** 0.5)
    # A frame's choice belongs to its clip and time, whatever else is in the batch.
    turned = chosen_frames(clips[::-1], times.flip(1), 0.5)
    assert torch.equal(turned.flip(0, 1), half)


def test_only_the_chosen_frames_of_a_stage_teach() -> None:
    method = make(pretrain=None, expression_weight=0.0, probe=ReadoutConfig(frame_share=0.5))
    batch = make_batch(clips=40)
    times = torch.arange(3.0).expand(40, 3)
    batch = dataclasses.replace(
        batch, views=(dataclasses.replace(batch.views[0], frame_times_BT=times),)
    )
    chosen_BT = chosen_frames(batch.clip_ids, times, 0.5)
    method.begin_stage(0)
    method.train()({"clips": batch}, FIRST)
    assert method.counts.coded_U.tolist() == [chosen_BT.sum()] * 2
    # What is coded in the other frames does not matter.
    assert batch.action_units_BTU is not None
    other = batch.action_units_BTU.masked_fill(~chosen_BT[..., None], 5.0)
    losses = []
    for units in (batch.action_units_BTU, other):
        method = make(pretrain=None, expression_weight=0.0, probe=ReadoutConfig(frame_share=0.5))
        method.begin_stage(0)
        changed = dataclasses.replace(batch, action_units_BTU=units)
        losses.append(method.train()({"clips": changed}, FIRST).loss.item())
    assert losses[0] == losses[1] > 0
    # Fine-tuning has all of them.
    method.begin_stage(1)
    assert method.frame_share == 1.0


def test_clips_without_a_class_count_for_units_alone() -> None:
    method = make(pretrain=None).train()
    batch = make_batch()
    blank = dataclasses.replace(
        batch, label_B=torch.full((4,), -1), soft_label_BK=torch.zeros(4, 2)
    )
    logs = method({"clips": blank}, FIRST).logs
    assert logs["expression_loss"] == 0
    assert logs["unit_loss"] > 0


def test_prediction_tells_of_frames() -> None:
    found = make().eval().predict(make_batch())
    assert found.logits_BK.shape == (4, 2)
    assert found.frame_features_BTD is not None
    assert found.frame_features_BTD.shape == (4, 3, 8)
    assert found.action_unit_logits_BTU is not None
    assert found.action_unit_logits_BTU.shape == (4, 3, 2)
    intensity = found.action_unit_intensity_BTU
    assert intensity is not None
    assert intensity.min() >= 0
    assert intensity.max() <= 5
    torch.testing.assert_close(found.features_BD, found.frame_features_BTD.mean(dim=1))
    plain = make(units=UnitConfig(weight=0.0)).eval()
    assert plain.action_units == ()
    assert plain.predict(make_batch()).action_unit_logits_BTU is None


# Centring


def whitened(rows: Tensor, mean_E: Tensor, covariance_EE: Tensor) -> Tensor:
    """By scipy's matrix power, a tenth of the mean variance added to all."""
    shrunk = covariance_EE + torch.eye(3) * (0.1 * covariance_EE.diagonal().mean() + 1e-6)
    root = torch.from_numpy(fractional_matrix_power(shrunk.double().numpy(), -0.5)).float()
    return F.normalize((rows - mean_E) @ root, dim=-1)


def test_running_statistics_are_those_of_batches_before() -> None:
    centring = RunningWhitening(3).train()
    torch.manual_seed(0)
    mixing = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, -1.0], [0.0, 0.0, 0.2]])
    batches = [4.0 * torch.randn(5, 2, 3) @ mixing + 7.0 for _ in range(3)]
    first, second = (batch.flatten(0, 1) for batch in batches[:2])
    mean_E, covariance_EE = first.mean(0), first.T.cov(correction=0)
    expected = whitened(first, mean_E, covariance_EE)
    torch.testing.assert_close(centring(batches[0]).flatten(0, 1), expected)
    # The second batch is seen with the first one's statistics, then moves them.
    expected = whitened(batches[1], mean_E, covariance_EE)
    torch.testing.assert_close(centring(batches[1]), expected)
    torch.testing.assert_close(centring.mean_E.float(), 0.95 * mean_E + 0.05 * second.mean(0))
    moved = 0.95 * covariance_EE + 0.05 * second.T.cov(correction=0)
    torch.testing.assert_close(centring.covariance_EE.float(), moved)
    # So a frame's embedding does not depend on what else is in its batch.
    alone, together = (centring(batches[2][:n])[:1] for n in (1, 5))
    assert not torch.equal(alone, together)  # the statistics moved in between
    centring.eval()
    torch.testing.assert_close(centring(batches[2][:1]), centring(batches[2])[:1])


def test_no_direction_outweighs_the_others() -> None:
    """Where three embeddings have much in common, cosines see one direction without whitening."""
    torch.manual_seed(0)
    rows = torch.randn(1, 4000, 3) + 3.0 * torch.randn(1, 4000, 1) * torch.tensor([1.0, 0.9, 0.8])

    def shares(embedded: Tensor) -> Tensor:
        """Of each direction in the squared length."""
        return torch.linalg.eigvalsh(embedded[0].T @ embedded[0]) / len(embedded[0])

    plain = shares(F.normalize((rows - rows.mean(1)) / rows.std(1), dim=2))
    assert plain[-1] > 0.7
    assert shares(RunningWhitening(3).train()(rows))[-1] < 0.45  # even: a third
    # A direction without any variance is not blown up.
    flat = RunningWhitening(3).train()
    assert flat(rows * torch.tensor([1.0, 0.0, 0.0])).isfinite().all()


def test_embeddings_of_an_untrained_network_are_spread() -> None:
    method = make()
    assert method.pretraining is not None
    view = make_batch().views[0]
    projected = method.network(view.video_BTCHW, view.has_face_BT)
    plain = F.normalize(projected, dim=2).flatten(0, 1).mean(0).norm()
    centred = method.pretraining.query_centring(projected)
    assert torch.allclose(centred.norm(dim=2), torch.ones(4, 3))
    assert centred.flatten(0, 1).mean(0).norm() < 0.3 < 0.7 < plain


# Monitors


def observe(monitor: CollapseMonitor, embedded: Tensor) -> None:
    monitor.observe_embeddings(embedded, torch.ones(embedded.shape[:2]).bool())


def test_a_dead_run_is_stopped_with_the_reason() -> None:
    monitor = CollapseMonitor(4, CollapseConfig(patience_epochs=2))
    same = F.normalize(torch.ones(3, 5, 4), dim=2)
    observe(monitor, same)
    notes = monitor.end_epoch()
    assert notes.logs["embedding_spread"] == pytest.approx(0.0, abs=1e-6)
    assert "same embedding" in notes.warnings[0]
    observe(monitor, same)
    with pytest.raises(CollapsedError, match=r"dead for 2 epochs.*instance_weight"):
        monitor.end_epoch()


def test_one_living_epoch_forgives() -> None:
    monitor = CollapseMonitor(4, CollapseConfig(patience_epochs=2))
    same, spread = torch.ones(1, 4, 4) / 2, torch.eye(4)[None]
    for embedded in (same, spread, same):
        observe(monitor, embedded)
        notes = monitor.end_epoch()
    assert notes.warnings
    # Four orthogonal vectors: the mean has squared length 1/4.
    observe(monitor, spread)
    logs = monitor.end_epoch().logs
    assert logs["embedding_spread"] == pytest.approx(0.75)
    assert logs["embedding_spread_in_clip"] == pytest.approx(0.75)


def test_even_attention_is_dead() -> None:
    monitor = CollapseMonitor(4, CollapseConfig(patience_epochs=1))
    observe(monitor, torch.eye(4)[None])
    counted = torch.tensor([True, True, False])
    monitor.observe_attention(torch.tensor([1.0, 1.0, 0.0]), torch.ones(3), counted)
    with pytest.raises(CollapsedError, match="attention_temperature"):
        monitor.end_epoch()


def test_reconstruction_needs_to_know_who_is_who() -> None:
    method = make()
    with pytest.raises(ValueError, match="subject_id"):
        method.end_epoch(lambda spec: [])


# Trunks


@pytest.mark.parametrize("kind", ["frozen", "group"])
def test_no_batch_norm_reads_a_batch(kind: str) -> None:
    trunk = build_trunk(TrunkConfig(name="resnet18", batch_norms=kind), 32).train()  # type: ignore[arg-type]
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(isinstance(m, FrozenBatchNorm2d) and not m.training for m in norms)
    assert bool(norms) == (kind == "frozen")
    faces = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(trunk(faces)[:1], trunk(faces[:1]), rtol=1e-4, atol=1e-5)


def test_trunks_that_are_refused() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        build_trunk(TrunkConfig(name="resnet81"), 32)
    with pytest.raises(ValueError, match="batch norms"):
        build_trunk(TrunkConfig(name="efficientnet_b0"), 32)


def test_weights_reach_both_encoders() -> None:
    config = dataclasses.replace(SMALL, trunk=TrunkConfig(name="resnet18"), image_size_px=32)
    method = Clp(config, ("happy", "sad"))
    assert method.pretrained_parts() == ("trunk",)
    given = {
        name: torch.full_like(tensor, 2)
        for name, tensor in method.network.encoder.trunk.state_dict().items()
    }
    method.load_pretrained("trunk", given)
    assert method.pretraining is not None
    for trunk in (method.network.encoder.trunk, method.pretraining.momentum.network.encoder.trunk):
        assert bool((trunk.conv1.weight == 2).all())  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no weights for 'video'"):
        method.load_pretrained("video", given)
    assert make().pretrained_parts() == ()


# Settings


def test_profiles() -> None:
    assert ClpConfig.paper().finetune is None
    for config in (ClpConfig.paper(), ClpConfig.robust(), ClpConfig.tiny()):
        assert config.pretrain is not None
        assert config.units.names == BP4D_UNITS


@pytest.mark.parametrize(
    "fault",
    [
        lambda: ClpConfig(pretrain=None, probe=None, finetune=None),
        lambda: ClpConfig(expression_weight=0.0, units=UnitConfig(weight=0.0)),
        lambda: ClpConfig(border_px=112),
        lambda: PretrainConfig(num_frames=1),
        lambda: PretrainConfig(num_frames=3, temporal=TemporalConfig(window=2)),
        lambda: PretrainConfig(
            temporal=TemporalConfig(weight=0.0), reconstruction=ReconstructionConfig(weight=0.0)
        ),
        lambda: TemporalConfig(temperature=0.0),
        lambda: ReconstructionConfig(top_k=0),
        lambda: CollapseConfig(min_spread=2.0),
        lambda: ReadoutConfig(clip_share=0.0),
        lambda: ReadoutConfig(frame_share=1.5),
        lambda: UnitConfig(names=("AU1", "AU1")),
        lambda: UnitConfig(max_present_weight=0.5),
        lambda: TrunkConfig(widths=()),
        lambda: Clp(SMALL, ()),
    ],
)
def test_settings_that_can_t_be(fault) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        fault()
