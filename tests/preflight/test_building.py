from __future__ import annotations

from mmengine.config import Config

from kdplugin.preflight.building import check_hooks_build, check_schedulers_build
from kdplugin.preflight.findings import Findings

GOOD = dict(type='OneCycleLR', eta_max=0.1, total_steps=10, by_epoch=False)
LACKING = dict(type='MultiStepLR', by_epoch=False)


def test_schedulers_are_built() -> None:
    found = Findings()
    epochs = dict(type='CosineAnnealingLR', T_max=5, end=5, by_epoch=True, convert_to_iter_based=True)
    check_schedulers_build(found, Config(dict(param_scheduler=[GOOD, epochs])))
    assert found == []
    check_schedulers_build(found, Config(dict(param_scheduler=[GOOD, LACKING])))
    assert [(one.level, one.where) for one in found] == [('error', 'param_scheduler.1')]


def test_hooks_are_built() -> None:
    found = Findings()
    good = dict(type='EMAHook', begin_iter=5, priority=49)
    both = dict(type='EMAHook', begin_iter=5, begin_epoch=5)
    draws = dict(type='mmdet.DetVisualizationHook')  # asks for the visualizer of a Runner
    hooks = dict(custom_hooks=[good, both], default_hooks=dict(a=None, b=draws))
    check_hooks_build(found, Config(hooks))
    assert [(one.level, one.where) for one in found] == [('error', 'custom_hooks.1')]


def test_what_was_judged_already_is_not_built() -> None:
    found = Findings()
    found.error('param_scheduler.0.x', 'Expected a but got b. Do c.')
    check_schedulers_build(found, Config(dict(param_scheduler=[LACKING])))
    assert len(found) == 1


def test_schedulers_are_stepped() -> None:
    found = Findings()
    texts = dict(type='PolyLR', power='0.9', begin=3, end=9, by_epoch=False)
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss')
    zero = dict(type='LinearLR', start_factor=0.0, begin=0, end=5, by_epoch=True)
    check_schedulers_build(found, Config(dict(param_scheduler=[GOOD, texts, plateau, zero])))
    assert [(one.level, one.where) for one in found] == [('error', 'param_scheduler.1'), ('error', 'param_scheduler.3')]
    assert 'ZeroDivisionError' in found[1].message


def test_the_processor_of_the_log_is_built() -> None:
    window = dict(data_src='loss', method_name='mean', window_size=10)
    found = Findings()
    check_hooks_build(found, Config(dict(log_processor=dict(by_epoch=True, custom_cfg=[window]))))
    assert found == []
    check_hooks_build(found, Config(dict(log_processor=dict(custom_cfg=[window, dict(window, method_name='max')]))))
    assert [(one.level, one.where) for one in found] == [('error', 'log_processor')]
    assert 'Found duplicate loss' in found[0].message
