"""OrionStudent: a detector like mmdet's, of which the backbone alone moves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orion_models as orion
import pytest
import torch
from engine_fixtures import KL, all_tensors, build, detection_batch, teacher_of
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError, DataError, PathError
from kdplugin.models.detectors import OrionStudent


@pytest.fixture(scope='module')
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return orion.save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.fixture(scope='module')
def orion_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return orion.save_orion(tmp_path_factory.mktemp('orion'))


def loaded(config: dict[str, Any], file: str) -> nn.Module:
    model = build(config)
    model.load_state_dict(torch.load(file, weights_only=True)['state_dict'], strict=True)
    return model


@MODELS.register_module(force=True)
class UsersHead(nn.Module):
    """A head of the user's own package: the mean of the map should be 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(channels, 1)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.scale(features[0].mean((2, 3)))

    def loss(self, features: tuple[Tensor, ...], samples: list[DetDataSample]) -> dict[str, Tensor]:
        return {'loss_mean': (self(features) - 1).square().mean()}

    def predict(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample], rescale: bool = True
    ) -> list[InstanceData]:
        return [InstanceData(scores=value) for value in self(features)]


def test_it_has_the_names_and_outputs_of_mmdets_detector(file: str) -> None:
    ours, theirs = (loaded(config, file).eval() for config in (orion.student(file), orion.teacher()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    batch = detection_batch()
    for mode in ('tensor', 'loss'):
        first, second = (model(**copy.deepcopy(batch), mode=mode) for model in (ours, theirs))
        pairs = zip(_flat(first), _flat(second), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    first, second = (model(**copy.deepcopy(batch), mode='predict')[0].pred_instances for model in (ours, theirs))
    assert len(first) > 0
    assert torch.equal(first.bboxes, second.bboxes)


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in _flat(item)]


def test_a_rig_is_its_views_one_after_the_other(file: str) -> None:
    model = loaded(orion.student(file), file).eval()
    batch = detection_batch()
    rigs = batch['inputs'].unflatten(0, (1, 2))
    nested = [copy.deepcopy(batch['data_samples'])]
    single = model(**copy.deepcopy(batch), mode='loss')
    assert all(
        torch.equal(one, other)
        for one, other in zip(_flat(single), _flat(model(rigs, nested, mode='loss')), strict=True)
    )
    assert torch.equal(_flat(model(rigs))[0], _flat(model(batch['inputs']))[0])
    with pytest.raises(DataError, match='Expected a data sample for each of 2 images but got 1'):
        model(rigs, [nested[0][:1]], mode='loss')


def test_everything_but_the_backbone_stays_bit_for_bit(file: str) -> None:
    model = build(orion.student(file)).train()
    before = {name: value.clone() for name, value in all_tensors(model).items()}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1, momentum=0.9)
    for seed in range(2):
        total, _ = model.parse_losses(model(**detection_batch(seed=seed), mode='loss'))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    moved = {name for name, value in all_tensors(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith('backbone.')}
    assert {name for name, one in model.named_modules() if one.training} >= {'backbone', 'backbone.blocks.0'}
    assert not any(one.training for one in (*model.neck.modules(), *model.bbox_head.modules()))


def test_nothing_frozen_moves_statistics_too(file: str) -> None:
    """The control of the test above."""
    model = build(orion.student(file, frozen=())).train()
    before = {name: value.clone() for name, value in all_tensors(model).items()}
    total, _ = model.parse_losses(model(**detection_batch(), mode='loss'))
    total.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = {name for name, value in all_tensors(model).items() if not torch.equal(value, before[name])}
    assert any(name.startswith('neck.') and 'running_mean' in name for name in moved)
    assert any(name.startswith('bbox_head.') for name in moved)


def test_frozen_parts_are_the_teachers_and_the_backbone_is_not_touched(file: str) -> None:
    weights = torch.load(file, weights_only=True)['state_dict']
    model = build(orion.student(file))
    for name, value in model.state_dict().items():
        if not name.endswith('num_batches_tracked') and 'rope' not in name:
            assert torch.equal(value, weights[name]) == (not name.startswith('backbone.')), name


def test_parts_of_orions_file_are_told_apart(orion_file: str, caplog: pytest.LogCaptureFixture) -> None:
    model = build(orion.student(orion_file, **orion.ORION))
    weights = torch.load(orion_file, weights_only=True)['state_dict']
    assert torch.equal(model.bbox_head.gfl_cls.weight, weights['bbox_head.gfl_cls.weight'])
    split = model._split(weights, 'file', ['backbone'])
    lines = list(map(str, split.reports))
    assert 'map_head: 1 tensors, 24 parameters, ignored' in lines
    assert 'query_pos: 1 tensors, 5 parameters, ignored' in lines
    assert any(line.startswith('img_backbone: ') and line.endswith('not loaded here: backbone') for line in lines)
    own = build(orion.teacher_part()).own_tensors(weights, 'file')
    assert torch.equal(own['backbone.pos_embed'], weights['img_backbone.pos_embed'])
    assert own.keys() == model.state_dict().keys()


def test_a_part_that_nobody_names_is_an_error_that_counts_it(orion_file: str) -> None:
    settings = dict(orion.ORION, ignore_prefixes=['lm_head'])
    message = (
        r"got those of map_head \(1 tensors, 24 parameters\), query_pos .*ignore_prefixes=\['map_head', 'query_pos'\]"
    )
    with pytest.raises(CheckpointError, match=message):
        build(orion.student(orion_file, **settings))


def test_a_prefix_without_tensors_is_an_error(orion_file: str) -> None:
    settings = dict(orion.ORION, ignore_prefixes=['map_head', 'lm_head', 'query_pos', 'time_embeding'])
    with pytest.raises(CheckpointError, match=r"Expected tensors under 'time_embeding' in .* but it has none"):
        build(orion.student(orion_file, **settings))


def test_parts_fit_strictly(file: str, tmp_path: Path) -> None:
    weights = torch.load(file, weights_only=True)['state_dict']
    del weights['neck.levels.0.0.conv.weight']
    weights['bbox_head.gfl_cls.bias'] = torch.zeros(11)
    for left, message in (
        (weights, 'to fit neck in all .* levels.0.0.conv.weight is missing'),
        (
            {**weights, 'neck.levels.0.0.conv.weight': torch.zeros(16, 32, 1, 1)},
            r'gfl_cls.bias is \(11,\) instead of \(10,\)',
        ),
    ):
        torch.save({'state_dict': left}, tmp_path / 'other.pth')
        with pytest.raises(CheckpointError, match=message):
            build(orion.student(str(tmp_path / 'other.pth')))


def test_frozen_parts_need_a_checkpoint() -> None:
    with pytest.raises(ConfigError, match=r"Expected a checkpoint for the frozen parts \['neck', 'bbox_head'\]"):
        build(orion.student(None))
    build(orion.student(None, frozen=['backbone.patch_embed']))


def test_wrong_names_are_told(file: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected names of heads that are free, .* but got 'backbone'"):
        build(orion.student(file, heads=dict(backbone=orion.head())))
    with pytest.raises(ConfigError, match=r"Expected sources of the parts .* but got \['img_backbone'\]"):
        build(orion.student(file, sources=dict(img_backbone='backbone')))
    with pytest.raises(PathError, match='bbox_haed'):
        build(orion.student(file, frozen=['bbox_haed']))


def test_several_heads_and_the_users_own(file: str, tmp_path: Path) -> None:
    weights = torch.load(file, weights_only=True)['state_dict']
    weights |= {'mean_head.scale.weight': torch.ones(1, 16), 'mean_head.scale.bias': torch.zeros(1)}
    torch.save({'state_dict': weights}, tmp_path / 'both.pth')
    heads = orion.student(None)['heads'] | dict(mean_head=dict(type='mmengine.UsersHead', channels=16))
    model = build(orion.student(str(tmp_path / 'both.pth'), heads=heads))
    losses = model(**detection_batch(), mode='loss')
    assert {'bbox_head.loss_cls', 'mean_head.loss_mean'} <= losses.keys()
    assert not any(value.requires_grad for value in model.mean_head.parameters())
    samples = model.eval()(**detection_batch(), mode='predict')
    assert 'scores' in samples[0].pred_mean_head
    assert 'bboxes' in samples[0].pred_instances


def kd(file: str, pairs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    teacher = dict(model=orion.teacher(), checkpoint=file)
    return dict(
        type='kdplugin.Distiller', _scope_='mmdet', student=orion.student(file, **changes), teacher=teacher, pairs=pairs
    )


BLOCK = dict(
    tap='backbone.blocks.1', student_layout='NHWC', teacher_layout='NHWC', loss=dict(type='kdplugin.CosineLoss')
)
OUTPUT = dict(tap='bbox_head.gfl_cls', loss=dict(KL, sigmoid=True))


@pytest.mark.parametrize('parts', [{}, dict(neck=None, heads=None)], ids=['heads', 'backbone'])
def test_without_labels_distillation_is_all_there_is(file: str, parts: dict[str, Any]) -> None:
    pairs = dict(block=dict(BLOCK, weight=0.5), **({} if parts else dict(output=dict(OUTPUT, weight=0.2))))
    model = build(dict(kd(file, pairs, supervised=False, **parts), alpha=0.7)).train()
    batch = detection_batch()
    for sample in batch['data_samples']:
        del sample.gt_instances
    total, logged = model.parse_losses(model(**batch, mode='loss'))
    terms = {name for name in logged if 'loss' in name}
    assert terms == {'loss', *(f'loss_kd_{name}' for name in pairs)}
    assert float(logged['kd_task']) == 0
    parts_of_total = [0.7 * pair['weight'] * float(logged[f'kd_{name}_raw']) for name, pair in pairs.items()]
    assert float(total) == pytest.approx(sum(parts_of_total), rel=1e-6)
    total.backward()
    assert all(value.grad is not None for value in model.backbone.parameters())
    assert all(value.grad is None for name, value in model.named_parameters() if not name.startswith('backbone.'))


def test_an_output_term_without_a_head_is_refused(file: str) -> None:
    parts = dict(neck=None, heads=None)
    with pytest.raises(PathError, match=r"Expected a module path of the student but got 'bbox_head.gfl_cls'"):
        build(kd(file, dict(output=OUTPUT), **parts))


def test_a_backbone_alone_does_not_predict() -> None:
    model = build(orion.student(None, neck=None, heads=None)).eval()
    assert isinstance(model, OrionStudent)
    with pytest.raises(ConfigError, match='Expected a head that predicts but the student has a backbone alone'):
        model(**detection_batch(), mode='predict')


def test_a_teacher_takes_its_parts_of_orions_file(orion_file: str) -> None:
    parts = dict(neck=None, heads=None)
    ignored = [*orion.ORION['ignore_prefixes'], 'neck', 'bbox_head']
    teacher = dict(model=orion.teacher_part(ignore_prefixes=ignored, **parts), checkpoint=orion_file)
    student = orion.student(None, supervised=False, **parts)
    config = dict(type='kdplugin.Distiller', _scope_='mmdet', student=student, teacher=teacher, pairs=dict(block=BLOCK))
    model = build(config)
    weights = torch.load(orion_file, weights_only=True)['state_dict']
    for name, value in teacher_of(model).backbone.named_parameters():
        assert torch.equal(value, weights[f'img_backbone.{name}'])
    teacher['model']['ignore_prefixes'] = ['map_head', 'lm_head', 'query_pos']
    with pytest.raises(CheckpointError, match=r'Expected every tensor of teacher checkpoint .* bbox_head'):
        build(config)
