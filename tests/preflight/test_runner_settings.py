from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from preflight_says import places, says
from torch import nn

from kdplugin.preflight import runner_settings as checks

ALL = (
    checks.check_inner_keys, checks.check_words, checks.check_imports, checks.check_loop_kind, checks.check_runner_kind,
    checks.check_backends,
)  # fmt: skip
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=10)


@pytest.mark.parametrize('check', ALL)
def test_what_is_right_is_no_finding(check: Any) -> None:
    config = dict(
        custom_imports=dict(imports=['json'], allow_failed_imports=False), launcher='pytorch', sync_bn='torch',
        env_cfg=dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork'), dist_cfg=dict(backend='nccl')),
        randomness=dict(seed=1, deterministic=True), auto_scale_lr=dict(enable=True, base_batch_size=16), resume=True,
        train_cfg=ITERATIONS, log_processor=dict(by_epoch=False), runner_type='FlexibleRunner',
        strategy=dict(type='FSDPStrategy'),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )  # fmt: skip
    assert says(check, config) == []
    assert says(check, {}) == []


@pytest.mark.parametrize(
    ('check', 'config', 'where', 'message'),
    [
        (checks.check_inner_keys, dict(randomness=dict(sed=1)), 'randomness.sed', "Did you mean 'seed'"),
        (checks.check_inner_keys, dict(auto_scale_lr=dict(enabled=True)), 'auto_scale_lr.enabled', "mean 'enable'"),
        (checks.check_inner_keys, dict(env_cfg=dict(mp_cfg=dict(start='fork'))), 'env_cfg.mp_cfg.start', 'not read'),
        (checks.check_words, dict(launcher='slrum'), 'launcher', "Did you mean 'slurm'"),
        (checks.check_words, dict(env_cfg=dict(dist_cfg=dict(backend='ncll'))), 'env_cfg.dist_cfg.backend', "'nccl'"),
        (checks.check_words, dict(sync_bn='pytorch'), 'sync_bn', "got 'pytorch'"),
        (checks.check_words, dict(resume='a/b.pth'), 'resume', 'Write resume=True and load_from=PATH'),
        (checks.check_imports, dict(custom_imports=dict(modules='x')), 'custom_imports', 'Write imports='),
        (checks.check_loop_kind, dict(train_cfg=dict(ITERATIONS, by_epoch=False)), 'train_cfg.by_epoch', 'remove'),
        (checks.check_runner_kind, dict(runner_type='FlexibleRuner'), 'runner_type', "mean 'FlexibleRunner'"),
        (checks.check_runner_kind, dict(strategy=dict(type='FSDPStrategy')), 'runner_type', 'leave the strategy out'),
        (checks.check_runner_kind, dict(runner_type='Runner', strategy=dict(type='S')), 'runner_type', "got 'Runner'"),
        (checks.check_backends, dict(visualizer=dict(vis_backends=[dict(type='NeptuneVisBackend')])),
         'visualizer.vis_backends.0', 'pip install neptune'),
    ],
)  # fmt: skip
def test_errors_and_their_cures(check: Any, config: dict[str, Any], where: str, message: str) -> None:
    ((level, place, text),) = says(check, config)
    assert (level, place) == ('error', where)
    assert message in text


def test_a_module_that_is_not_there_is_a_warning_also_if_that_is_allowed() -> None:
    config = dict(custom_imports=dict(imports=['json', 'gone_package.part'], allow_failed_imports=True))
    ((level, where, text),) = says(checks.check_imports, config)
    assert (level, where) == ('warning', 'custom_imports.imports')
    assert "'gone_package.part' is none here" in text


def test_a_log_counts_what_the_loop_counts() -> None:
    for log, loop, expected in (
        (dict(by_epoch=True), ITERATIONS, 1),
        (dict(type='LogProcessor'), ITERATIONS, 1),
        (dict(by_epoch=True), dict(by_epoch=True, max_epochs=2), 0),
        (dict(by_epoch=False), dict(by_epoch=False, max_iters=2), 0),
    ):
        found = places(checks.check_loop_kind, dict(log_processor=log, train_cfg=loop))
        assert found == [('warning', 'log_processor.by_epoch')] * expected


@pytest.mark.parametrize('settings', [True, dict(backend='inductor', mode='default'), dict(mode='max-autotune'), None])
def test_what_torch_compiles_with(settings: Any) -> None:
    assert says(checks.check_compile, dict(compile=settings)) == []


@pytest.mark.parametrize(('key', 'wrong', 'near'), [('backend', 'inducter', 'inductor'), ('mode', 'fast', 'default')])
def test_what_torch_does_not_compile_with(key: str, wrong: str, near: str) -> None:
    ((level, where, told),) = says(checks.check_compile, dict(compile={key: wrong}))
    assert (level, where) == ('error', f'compile.{key}')
    assert near in told


@pytest.mark.parametrize('key', ['activation_checkpointing', 'efficient_conv_bn_eval'])
def test_parts_that_are_recomputed_are_parts_of_the_student(key: str) -> None:
    model = dict(type='kdplugin.Distiller', student=dict(type='GFL', backbone={}, neck={}, test_cfg={}))
    for plain in (model, model['student']):
        for good in ('backbone', ['backbone.layer4', 'neck'], 'something_else', None):
            assert says(checks.check_wrapped_parts, {'model': plain, key: good}) == []
        ((level, where, told),) = says(checks.check_wrapped_parts, {'model': plain, key: ['neck', 'backbon']})
        assert (level, where) == ('error', key)
        assert "Did you mean 'backbone'?" in told


def test_parts_that_are_recomputed_are_modules() -> None:
    student = nn.Sequential(OrderedDict(backbone=nn.Sequential(nn.Linear(1, 1))))
    for good in ('backbone', ['backbone.0'], None):
        assert says(checks.check_wrapped_modules, dict(activation_checkpointing=good), student) == []
    told = says(checks.check_wrapped_modules, dict(efficient_conv_bn_eval=['backbone.7']), student)
    assert [(level, where) for level, where, _ in told] == [('error', 'efficient_conv_bn_eval')]
    assert 'backbone.7' in told[0][2]
