"""Weights are found under whatever training code wrapped around them, averaged ones only when asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.unwrap import plain_names, require_averaged, state_dict_of, tensors_of

RAW = {'head.weight': torch.tensor([1.0]), 'head.bias': torch.tensor([2.0])}
MEAN = {key: value + 10 for key, value in RAW.items()}
COUNT = torch.tensor(9)


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def mmengine_file() -> dict[str, Any]:
    """Return what EMAHook.before_save_checkpoint leaves: the two are swapped, and the counter stays."""
    return {
        'meta': {'mmengine_version': '0.10.7', 'epoch': 3},
        'state_dict': dict(MEAN),
        'ema_state_dict': {**under('module.', RAW), 'steps': COUNT},
    }


AVERAGED: dict[str, Callable[[], dict[str, Any]]] = {
    'mmengine': mmengine_file,
    'no word of mmengine': lambda: {'state_dict': RAW, 'ema_state_dict': {**under('module.', MEAN), 'steps': COUNT}},
    'timm': lambda: {'state_dict': RAW, 'state_dict_ema': MEAN, 'epoch': 3, 'arch': 'vit'},
    'torchvision': lambda: {'model': RAW, 'model_ema': {**under('module.', MEAN), 'n_averaged': COUNT}},
    'rt-detr': lambda: {'model': RAW, 'ema': {'module': MEAN, 'updates': 7}},
    'nested': lambda: {'model': RAW, 'model_ema': {'state_dict': MEAN}},
}  # fmt: skip


@pytest.mark.parametrize('layout', AVERAGED)
def test_averaged_weights_on_request(layout: str) -> None:
    read = state_dict_of(AVERAGED[layout](), ema=True)
    assert read.keys() == MEAN.keys()
    assert all(torch.equal(read[key], value) for key, value in MEAN.items())


@pytest.mark.parametrize('layout', AVERAGED)
def test_without_request_the_plain_ones(layout: str) -> None:
    """mmengine saves averaged weights as the plain ones: they are what it validates and loads."""
    wanted = MEAN if layout == 'mmengine' else RAW
    read = state_dict_of(AVERAGED[layout]())
    assert {key: value.item() for key, value in read.items()} == {key: value.item() for key, value in wanted.items()}


def test_the_swap_is_mmengines_own() -> None:
    """The layout above is not an assumption: their hook makes it."""
    pytest.importorskip('mmengine')
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    model = nn.Linear(2, 1)
    average = ExponentialMovingAverage(model)
    nn.init.constant_(model.weight, 1.0)
    nn.init.constant_(average.module.weight, 5.0)
    hook = EMAHook()
    hook.ema_model, hook.src_model = average, model
    content = {'state_dict': copy.deepcopy(model.state_dict()), 'meta': {'mmengine_version': '0'}}
    hook.before_save_checkpoint(None, content)
    assert 'steps' in content['ema_state_dict']
    assert state_dict_of(content, ema=True)['weight'].mean() == 5
    assert state_dict_of(content, prefix='ema_state_dict')['weight'].mean() == 1


def test_torchs_averaged_model() -> None:
    averaged = AveragedModel(nn.Linear(2, 1)).state_dict()
    for ema in (True, False):
        assert list(state_dict_of(averaged, ema=ema)) == ['weight', 'bias']
        assert list(state_dict_of({'state_dict': averaged}, ema=ema)) == ['weight', 'bias']
    require_averaged(averaged, 'a file')


@pytest.mark.parametrize(
    ('content', 'held'),
    [
        ({'state_dict': RAW, 'optimizer': {}, 'teacher': RAW}, r"only 'state_dict', 'teacher'"),
        (RAW, r"2 entries such as 'head\.weight', 'head\.bias'"),
    ],
)
def test_averaged_weights_that_are_not_there(content: dict[str, Any], held: str) -> None:
    message = rf'Expected averaged \(EMA\) weights in a\.pth but got {held}\. Read it without ema\.'
    with pytest.raises(CheckpointError, match=message):
        state_dict_of(content, 'a.pth', ema=True)


@pytest.mark.parametrize('names', [['module.a'], ['n_averaged', 'a'], ['a', 'b']])
def test_names_that_are_not_an_averaged_models(names: list[str]) -> None:
    message = rf'Expected averaged \(EMA\) weights in f but got {len(names)} tensors such as {names[0]}.*without ema'
    with pytest.raises(CheckpointError, match=message):
        require_averaged(names, 'f')


@pytest.mark.parametrize(
    ('written', 'plain'),
    [
        (['module.a', 'module.b'], ['a', 'b']),
        (['module.module.a'], ['a']),
        (['_orig_mod.a.w', '_orig_mod.b'], ['a.w', 'b']),
        (['_orig_mod.module.a'], ['a']),
        (['module._orig_mod.a'], ['a']),
        (['backbone._orig_mod.a', 'head.b'], ['backbone.a', 'head.b']),
        (['_fsdp_wrapped_module.a._checkpoint_wrapped_module.b'], ['a.b']),
        (['module.a', 'n_averaged'], ['a']),
        (['module.a', 'b'], ['module.a', 'b']),
        (['steps', 'a'], ['steps', 'a']),
        (['steps'], ['steps']),
        (['a.module.b'], ['a.module.b']),
        (['modules.a', 'my_orig_mod.b'], ['modules.a', 'my_orig_mod.b']),
    ],
)
def test_plain_names(written: list[str], plain: list[str]) -> None:
    names = plain_names(written, 'f')
    assert list(names) == plain
    assert list(names.values()) == [name for name in written if name != 'n_averaged']
    assert list(plain_names(plain, 'f')) == plain


def test_a_compiled_parallel_model_has_the_names_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    compiled = nn.ModuleDict({'_orig_mod': nn.DataParallel(model)})  # torch.compile itself takes seconds to import
    assert next(iter(compiled.state_dict())) == '_orig_mod.module.0.weight'
    assert list(state_dict_of(compiled.state_dict())) == list(model.state_dict())


def test_two_tensors_of_one_name() -> None:
    with pytest.raises(CheckpointError, match=r"tensor of f but got 'a' for both 'a' and '_orig_mod\.a'\. Rename one"):
        plain_names(['a', '_orig_mod.a'], 'f')


@pytest.mark.parametrize('prefix', ['img_backbone', 'img_backbone.'])
def test_a_prefix_selects_and_goes(prefix: str) -> None:
    state = dict.fromkeys(['module.img_backbone.a', 'module.img_backbone2.a', 'module.x.a'], COUNT)
    assert list(state_dict_of({'state_dict': state}, prefix=prefix)) == ['a']


def test_a_prefix_can_be_the_key_of_a_state_dict() -> None:
    """DINO keeps two networks side by side, and torch's tutorial calls it model_state_dict."""
    content = {'teacher': under('module.backbone.', MEAN), 'student': RAW, 'model_state_dict': RAW, 'epoch': 3}
    assert list(state_dict_of(content, prefix='teacher.backbone')) == list(MEAN)
    assert list(state_dict_of(content, prefix='model_state_dict')) == list(RAW)
    message = (
        r"non-tensor entries such as \['teacher', 'student', 'model_state_dict'\]\. "
        r"Set prefix= to one of its state dicts: 'teacher', 'student', 'model_state_dict'\."
    )
    with pytest.raises(CheckpointError, match=message):
        state_dict_of(content)


def test_a_prefix_that_nothing_has() -> None:
    message = (
        r"names that begin with 'imgbackbone\.' in f but none does\. Did you mean 'img_backbone\.'.*\? "
        r'They begin with img_backbone, head\. Correct the prefix\.'
    )
    with pytest.raises(CheckpointError, match=message):
        state_dict_of({'img_backbone.a': RAW['head.bias'], 'head.b': RAW['head.bias']}, 'f', prefix='imgbackbone.')


def test_names_that_are_not_text_are_strangers() -> None:
    with pytest.raises(CheckpointError, match=r'non-tensor entries such as \[0\]'):
        tensors_of({0: RAW['head.bias']}, 'f')


def test_order_and_identity_are_kept() -> None:
    state = {'module.z': RAW['head.bias'], 'module.a': RAW['head.weight']}
    read = state_dict_of({'model': state})
    assert list(read) == ['z', 'a']
    assert read['z'] is RAW['head.bias']
