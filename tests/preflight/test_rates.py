from __future__ import annotations

from typing import Any

import pytest
from preflight_says import places, says

from kdplugin.preflight.rates import check_amp, check_batch_and_rate, check_optimizer

SGD = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)


def wrapper(optimizer: Any = SGD, **more: Any) -> dict[str, Any]:
    return dict(optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer, **more))


def test_a_good_optimizer_is_no_finding() -> None:
    assert says(check_optimizer, wrapper(clip_grad=dict(max_norm=5), paramwise_cfg=dict(custom_keys=dict(a={})))) == []


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (wrapper(dict(SGD, lr='1e-3')), ('error', 'optim_wrapper.optimizer.lr')),
        (wrapper(dict(SGD, weight_decay=-1)), ('error', 'optim_wrapper.optimizer.weight_decay')),
        (wrapper(dict(type='AdamW')), ('warning', 'optim_wrapper.optimizer.lr')),
        (wrapper(dict(type='AdamW', lr=0.5)), ('warning', 'optim_wrapper.optimizer.lr')),
        (wrapper(dict(SGD, lr=0)), ('warning', 'optim_wrapper.optimizer.lr')),
        (wrapper(None), ('error', 'optim_wrapper.optimizer')),
        (wrapper(accumulative_counts=0), ('error', 'optim_wrapper.accumulative_counts')),
        (wrapper(clip_grad=35), ('error', 'optim_wrapper.clip_grad')),
        (wrapper(clip_grad=dict(max_value=1)), ('error', 'optim_wrapper.clip_grad')),
        (wrapper(paramwise_cfg=dict(custom_keys=['backbone'])), ('error', 'optim_wrapper.paramwise_cfg.custom_keys')),
    ],
)
def test_mistakes_of_an_optimizer(config: dict[str, Any], expected: tuple[str, str]) -> None:
    assert places(check_optimizer, config) == [expected]


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic'), []),
        (dict(type='AmpOptimWrapper', dtype='bf16'), [('error', 'optim_wrapper.dtype')]),
        (dict(type='AmpOptimWrapper', loss_scale='static'), [('error', 'optim_wrapper.loss_scale')]),
        (dict(type='AmpOptimWrapper', dtype='float16', loss_scale=1), [('warning', 'optim_wrapper.loss_scale')]),
        (dict(type='AmpOptimWrapper', loss_scale=0), [('error', 'optim_wrapper.loss_scale')]),
        (dict(type='AmpOptimWrapper', loss_scale=dict(init_scale=512.0, growth_interval=3)), []),
        (
            dict(type='AmpOptimWrapper', loss_scale=dict(growth_intervall=3)),
            [('error', 'optim_wrapper.loss_scale.growth_intervall')],
        ),
        (dict(type='AmpOptimWrapper', dtype='float32'), [('warning', 'optim_wrapper.dtype')]),
        (dict(type='OptimWrapper', loss_scale=512.0), [('error', 'optim_wrapper.loss_scale')]),
    ],
)
def test_mixed_precision(settings: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert places(check_amp, dict(optim_wrapper=settings)) == expected


def test_the_rate_suits_the_batch() -> None:
    def config(**scaling: Any) -> dict[str, Any]:
        return dict(auto_scale_lr=scaling, train_dataloader=dict(batch_size=2), **wrapper())

    plain = config(enable=False, base_batch_size=16)
    assert places(check_batch_and_rate, plain, 8) == []
    ((level, where, message),) = says(check_batch_and_rate, plain, 4)
    assert (level, where) == ('warning', 'auto_scale_lr')
    assert '2 x 4 GPUs = 8' in message
    assert 'multiply lr by 0.5 (lr=0.005)' in message
    assert places(check_batch_and_rate, config(enable=True, base_batch_size=16), 4) == []
    assert places(check_batch_and_rate, config(enable=True), 4) == [('error', 'auto_scale_lr.base_batch_size')]
    assert says(check_batch_and_rate, plain, None)[0][0] == 'note'
    assert says(check_batch_and_rate, wrapper(), 3) == []


@pytest.mark.parametrize(
    ('config', 'key'),
    [
        (wrapper(clip_grad=dict(max_norm=0)), 'clip_grad.max_norm'),
        (wrapper(clip_grad=dict(max_norm='35')), 'clip_grad.max_norm'),
        (wrapper(dict(type='AdamW', lr=1e-4, betas=0.9)), 'optimizer.betas'),
    ],
)
def test_numbers_that_stop_the_first_step(config: dict[str, Any], key: str) -> None:
    assert places(check_optimizer, config) == [('error', f'optim_wrapper.{key}')]
    assert places(check_optimizer, wrapper(dict(type='AdamW', lr=1e-4, betas=(0.9, 0.98)))) == []


def test_apex_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dict(optim_wrapper=dict(type='ApexOptimWrapper', optimizer=SGD))
    for there, expected in ((None, [('error', 'optim_wrapper.type')]), (object(), [])):
        monkeypatch.setattr('kdplugin.preflight.rates.find_spec', lambda name, there=there: there)
        assert places(check_amp, config) == expected


def test_accumulated_batches_count() -> None:
    def config(enable: bool) -> dict[str, Any]:
        scaling = dict(enable=enable, base_batch_size=16)
        return dict(auto_scale_lr=scaling, train_dataloader=dict(batch_size=2), **wrapper(accumulative_counts=8))

    assert says(check_batch_and_rate, config(False), 1) == []
    ((level, where, text),) = says(check_batch_and_rate, config(False), 2)
    assert (level, where) == ('warning', 'auto_scale_lr')
    assert '2 x 2 GPUs x 8 accumulated = 32. Multiply lr by 2 (lr=0.02)' in text
    ((level, where, text),) = says(check_batch_and_rate, config(True), 1)
    assert (level, where) == ('warning', 'auto_scale_lr.enable')
    assert 'write base_batch_size=2' in text
    assert '1 GPUs of 2 x 8 accumulated' in says(check_batch_and_rate, config(False), None)[0][2]


@pytest.mark.parametrize(
    ('config', 'level', 'key', 'cure'),
    [
        (wrapper(dict(SGD, momentum=9)), 'error', 'optimizer.momentum', 'write 0.9'),
        (wrapper(dict(SGD, momentum=1.0)), 'error', 'optimizer.momentum', 'write 0.9'),
        (wrapper(dict(SGD, maximize=True)), 'error', 'optimizer.maximize', 'Remove it'),
        (wrapper(dict(SGD, lr=float('nan'))), 'error', 'optimizer.lr', 'got nan'),
        (wrapper(dict(SGD, weight_decay=5.0)), 'warning', 'optimizer.weight_decay', 'write 0.0001'),
        (wrapper(dict(type='AdamW', lr=1e-4, weight_decay=5)), 'warning', 'optimizer.weight_decay', 'write 0.05'),
        (wrapper(clip_grad=dict(max_norm=1e-4)), 'warning', 'clip_grad.max_norm', 'Nothing would learn'),
    ],
)
def test_numbers_that_ruin_a_training(config: dict[str, Any], level: str, key: str, cure: str) -> None:
    ((found, where, text),) = says(check_optimizer, config)
    assert (found, where) == (level, f'optim_wrapper.{key}')
    assert cure in text
    assert says(check_optimizer, wrapper(dict(SGD, weight_decay=0.04), clip_grad=dict(max_norm=0.01))) == []


def test_a_text_is_neither_true_nor_false() -> None:
    config = dict(wrapper(), auto_scale_lr=dict(enable='False'), train_dataloader=dict(batch_size=2))
    ((level, text),) = [
        (level, text) for level, where, text in says(check_batch_and_rate, config, 1) if where == 'auto_scale_lr.enable'
    ]
    assert level == 'error'
    assert "got 'False', which counts as True" in text
