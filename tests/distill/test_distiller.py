"""Contract 0: the model is the student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    Forwards,
    all_tensors,
    build,
    distilled,
    kd_segmentor,
    segmentation_batch,
    segmentor,
    teacher_of,
)
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from torch import nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.errors import ConfigError, PathError
from kdplugin.weights.reading.io import hash_tensors


def own(names: Any) -> list[str]:
    return [name for name in names if name.split('.')[0] != '_kd']


# contract 0


def test_the_model_is_the_student(both: tuple[nn.Module, nn.Module]) -> None:
    plain, kd = both
    assert isinstance(kd, type(plain))
    assert type(kd).__name__ == type(plain).__name__
    assert type(kd).__module__ == type(plain).__module__
    assert list(kd.state_dict()) == list(plain.state_dict())
    assert own(dict(kd.named_parameters())) == list(dict(plain.named_parameters()))
    assert own(dict(kd.named_buffers())) == list(dict(plain.named_buffers()))
    assert own(dict(kd.named_modules())) == list(dict(plain.named_modules()))
    assert kd.backbone is dict(kd.named_modules())['backbone']


def test_the_students_weights_are_the_plain_ones(both: tuple[nn.Module, nn.Module]) -> None:
    """Building teacher and adapters, and ``init_weights``, leave the student's initialisation alone."""
    plain, kd = both
    assert hash_tensors(kd.state_dict()) == hash_tensors(plain.state_dict())


def test_an_initialisation_of_the_whole_student_stops_at_the_adapters(shared: Path) -> None:
    student = dict(segmentor(), init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    model = build(kd_segmentor(shared, student=student))
    assert model.decode_head.convs[0].conv.weight.unique().tolist() == [0.25]
    assert len(adapters_of(model)['feature'][0].weight.unique()) > 2


def test_state_dict_loads_strictly_into_the_plain_model_and_back(both: tuple[nn.Module, nn.Module]) -> None:
    plain, kd = both
    with torch.no_grad():
        for value in all_tensors(kd).values():
            value.add_(1)
    plain.load_state_dict(kd.state_dict(), strict=True)
    assert hash_tensors(plain.state_dict()) == hash_tensors(kd.state_dict())
    kd.load_state_dict(plain.state_dict(), strict=True)


def test_inference_is_the_students_and_never_runs_the_teacher(both: tuple[nn.Module, nn.Module]) -> None:
    plain, kd = both
    calls = Forwards(teacher_of(kd))
    inputs = segmentation_batch(64)['inputs']
    outputs = [model.eval()(inputs, mode='tensor') for model in (plain, kd)]
    for one, other in zip(*map(flat, outputs), strict=True):
        assert torch.equal(one, other)
    assert calls.count == 0


def flat(output: Any) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else [leaf for item in output for leaf in flat(item)]


def groups(model: nn.Module, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by parameter name everything its optimizer group says."""
    wrapper = build_optim_wrapper(model, copy.deepcopy(config))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: {key: value for key, value in group.items() if key not in ('params', 'param_names')}
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


def test_layer_decay_groups_are_the_plain_ones(shared: Path) -> None:
    """mmseg's constructor reads ``module.backbone`` and names that begin with 'backbone.'."""
    student = segmentor()
    student['backbone'] = dict(
        type='BEiT', img_size=(64, 64), patch_size=16, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2,
        out_indices=(0, 1), qv_bias=True, attn_drop_rate=0.0, drop_path_rate=0.1, init_values=0.1,
    )  # fmt: skip
    student['decode_head'].update(in_channels=16, in_index=1)
    student['data_preprocessor'].update(size=(64, 64))
    pairs = dict(feature=dict(student_tap='decode_head.convs', teacher_tap='backbone.layer3', loss=COSINE))
    config = dict(
        optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), constructor='LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=2, decay_rate=0.5, decay_type='layer_wise'),
    )  # fmt: skip
    plain = groups(build(student), config)
    kd = groups(build(distilled(shared, pairs, student)), config)
    adapters = {name: kd.pop(name) for name in list(kd) if name.startswith('_kd.')}
    assert kd == plain
    assert len({group['lr'] for group in plain.values()}) > 2
    assert {group['lr'] for group in adapters.values()} == {1e-3}


def test_custom_keys_groups_are_the_plain_ones(both: tuple[nn.Module, nn.Module]) -> None:
    config = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1),
        paramwise_cfg=dict(
            norm_decay_mult=0.0, bias_lr_mult=2.0,
            custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.layer1': dict(lr_mult=0.01, decay_mult=0.5)},
        ),
    )  # fmt: skip
    plain, kd = (groups(model, config) for model in both)
    assert {name: kd[name] for name in plain} == plain
    assert len({group['lr'] for group in plain.values()}) >= 4
    assert set(kd) - set(plain) == set(dict(both[1].named_parameters())) - set(plain) != set()


def test_sync_batchnorm_of_a_student_can_be_reverted(shared: Path) -> None:
    model = build(kd_segmentor(shared, student=segmentor(norm='SyncBN')))
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    model = revert_sync_batchnorm(model)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    losses = model.train()(**segmentation_batch(), mode='loss')
    assert losses['kd_feature_raw'] > 0


def test_runner_hands_the_preprocessor_of_the_config_to_the_student(shared: Path) -> None:
    student = segmentor()
    preprocessor = student.pop('data_preprocessor')
    model = build(kd_segmentor(shared, student=student, data_preprocessor=dict(preprocessor, mean=[1.0, 2.0, 3.0])))
    assert model.data_preprocessor.mean.flatten().tolist() == [1.0, 2.0, 3.0]


# frozen parts, settings, mistakes


def test_frozen_modules_neither_learn_nor_keep_statistics(shared: Path) -> None:
    frozen = ['backbone.conv1', 'backbone.bn1', 'backbone.layer[12]', 'decode_head.conv_seg.bias']
    model = build(kd_segmentor(shared, frozen=frozen)).train()
    still = {name: value.clone() for name, value in all_tensors(model).items() if name.startswith(tuple(
        name.replace('[12]', digit) for name in frozen for digit in '12'))}  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    total, _ = model.parse_losses(model(**segmentation_batch(), mode='loss'))
    total.backward()
    optimizer.step()
    after = all_tensors(model)
    assert len(still) > 20
    assert all(torch.equal(after[name], value) for name, value in still.items())
    assert not torch.equal(after['backbone.layer3.0.bn1.running_mean'], torch.zeros(32))
    assert model.decode_head.conv_seg.weight.grad is not None
    assert model.decode_head.training
    assert not model.backbone.layer1[0].bn1.training


def test_a_pattern_may_select_empty_containers(shared: Path) -> None:
    """``bool(nn.Sequential())`` is False; a head without convolutions has one."""
    model = build(distilled(shared, {}), initialise=False)
    model.decode_head.add_module('nothing', nn.Sequential())
    from kdplugin.distill.distiller import freeze

    freeze(model, ['decode_head.nothing', 'decode_head.conv_seg'])
    assert not model.decode_head.conv_seg.weight.requires_grad


def test_settings_are_plain_values(shared: Path) -> None:
    settings = distillation_of(build(kd_segmentor(shared, frozen=('backbone.conv1',), task_weight=2))).settings
    assert settings['pairs']['logits'] == dict(
        tap='decode_head.conv_seg', weight=2.0, loss=dict(type='kdplugin.KLDivergenceLoss', temperature=2.0)
    )
    assert settings['frozen'] == ['backbone.conv1']
    assert settings['task_weight'] == 2
    assert 'student' not in settings


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(techer=1), ConfigError, r"keys .* in kdplugin\.Distiller but got 'techer'. Did you mean 'teacher'"),
        (dict(student=None), ConfigError, 'Expected a student in kdplugin.Distiller but got none'),
        (dict(teacher=None), ConfigError, 'Expected a teacher for the pairs but got none'),
        (dict(frozen='backbone'), ConfigError, r"frozen to be a list of patterns but got 'backbone'"),
        (dict(frozen=['backbone.layer9*']), PathError, r"in the student but 'backbone\.layer9\*' matches nothing"),
        (dict(task_weight=-1), ConfigError, r'a finite weight >= 0 in task_weight but got -1'),
        (dict(task_weight='1'), ConfigError, r"a finite weight >= 0 in task_weight but got '1'"),
        (dict(pairs=[1]), ConfigError, r'pairs to be a dict of dicts by name but got \[1\]'),
        (dict(pairs=dict(a=dict(tap='backbon', loss=COSINE))), PathError,
         r"path of the student but got 'backbon'. Did you mean 'backbone'"),
        (dict(pairs=dict(a=dict(student_tap='backbone', teacher_tap='neck', loss=COSINE))), PathError,
         r"path of the teacher but got 'neck'"),
    ],
)  # fmt: skip
def test_config_mistakes_are_named(shared: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build({**kd_segmentor(shared), **change}, initialise=False)


def test_a_missing_student_is_named(shared: Path) -> None:
    config = kd_segmentor(shared)
    del config['student']
    with pytest.raises(ConfigError, match=r'Expected a student in kdplugin\.Distiller but got none'):
        build(config)


def test_other_normalisation_of_the_teacher_is_a_warning(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.distiller.print_log', lambda message, **_: said.append(message))
    student = segmentor()
    student['data_preprocessor'] = dict(student['data_preprocessor'], mean=[0.0, 0.0, 0.0])
    build(kd_segmentor(shared, student=student))
    assert len(said) == 1
    assert 'to normalise images alike but got mean [0.0, 0.0, 0.0] and [123.' in said[0]
