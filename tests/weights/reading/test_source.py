"""One call opens whatever a person holds, under plain names."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import trust_checkpoints
from kdplugin.weights.reading.source import MemorySource, TensorSource, open_source

STATE = {
    'img_backbone.blocks.10.w': torch.ones(2, 3),
    'img_backbone.blocks.2.w': torch.zeros(4),
    'head.b': torch.ones(1),
}
NATURAL = ['head.b', 'img_backbone.blocks.2.w', 'img_backbone.blocks.10.w']


def write(folder: Path, form: str, state: dict[str, Tensor] = STATE) -> Any:
    """Return the same weights in one of the forms that a person may hold, under the names of a wrapped model."""
    state = {f'module.{key}': value for key, value in state.items()}
    if form == 'safetensors':
        safetensors.torch.save_file(state, folder / 'a.safetensors')
        return folder / 'a.safetensors'
    if form in ('pth', 'ckpt', 'pth.tar', 'bin', 'pt'):
        torch.save({'state_dict': state, 'epoch': 3}, folder / f'a.{form}')
        return folder / f'a.{form}'
    if form == 'folder':
        torch.save(state, folder / 'a.pth')
        return str(folder)
    if form in ('shards', 'index', 'bin shards'):
        ending = 'bin' if form == 'bin shards' else 'safetensors'
        save = torch.save if ending == 'bin' else safetensors.torch.save_file
        for number, (key, value) in enumerate(state.items()):
            save({key: value}, folder / f'{number}.{ending}')
        weight_map = {key: f'{number}.{ending}' for number, key in enumerate(state)}
        (folder / f'model.{ending}.index.json').write_text(json.dumps({'weight_map': weight_map}))
        return folder / 'model.safetensors.index.json' if form == 'index' else folder
    if form == 'diffusers':
        (folder / 'model_index.json').write_text('{}')
        (folder / 'transformer').mkdir()
        safetensors.torch.save_file(state, folder / 'transformer' / 'diffusion_pytorch_model.safetensors')
        return folder
    return {'dict': state, 'checkpoint': {'model': state, 'epoch': 3}, 'source': MemorySource(state)}[form]


FILES = ['safetensors', 'pth', 'ckpt', 'pth.tar', 'bin', 'pt']
FORMS = [*FILES, 'folder', 'shards', 'index', 'bin shards', 'diffusers', 'dict', 'checkpoint']
SORTED = ('safetensors', 'shards', 'index', 'bin shards', 'diffusers')


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    source = open_source(write(tmp_path, form))
    assert isinstance(source, TensorSource)
    assert list(source) == (NATURAL if form in SORTED else list(STATE))
    for key, value in STATE.items():
        assert source.shape(key) == tuple(value.shape)
        assert source.dtype(key) == value.dtype
        assert torch.equal(source[key], value)


@pytest.mark.parametrize('form', [*FORMS, 'source'])
def test_a_prefix_selects_and_goes(tmp_path: Path, form: str) -> None:
    what = write(tmp_path, form)
    source = open_source(what, prefix='img_backbone.')
    assert sorted(source) == ['blocks.10.w', 'blocks.2.w']
    assert torch.equal(source['blocks.10.w'], STATE['img_backbone.blocks.10.w'])
    message = r"begin with 'backbone\.' in .* but none does\. Did you mean 'img_backbone\.'"
    with pytest.raises(CheckpointError, match=message):
        open_source(what, prefix='backbone')


@pytest.mark.parametrize('form', [*FORMS, 'source'])
def test_averaged_weights_that_are_not_there(tmp_path: Path, form: str) -> None:
    with pytest.raises(CheckpointError, match=r'Expected averaged \(EMA\) weights in .* but got .*Read it without ema'):
        open_source(write(tmp_path, form), ema=True)


@pytest.mark.parametrize('form', FILES)
def test_averaged_weights_of_files(tmp_path: Path, form: str) -> None:
    model = nn.Linear(2, 1)
    averaged = AveragedModel(model).state_dict()
    path = tmp_path / f'a.{form}'
    if form == 'safetensors':
        safetensors.torch.save_file(averaged, path)
    else:
        torch.save({'model': {'weight': torch.zeros(1, 2), 'bias': torch.zeros(1)}, 'model_ema': averaged}, path)
    source = open_source(path, ema=True)
    assert torch.equal(source['weight'], model.weight)
    assert sorted(source) == ['bias', 'weight']


def test_a_module() -> None:
    model = nn.DataParallel(nn.Linear(2, 1))
    source = open_source(model)
    assert (source.name, list(source)) == ('DataParallel', ['weight', 'bias'])
    assert not source['weight'].requires_grad
    assert torch.equal(open_source(AveragedModel(model.module), ema=True)['bias'], model.module.bias)


def test_a_source_is_returned_as_it_is() -> None:
    source = MemorySource(STATE)
    assert open_source(source) is source
    assert open_source(source, name='the teacher').name == 'the teacher'
    assert source.name == 'the state dict'


@pytest.mark.parametrize('form', FORMS)
def test_names_of_sources(tmp_path: Path, form: str) -> None:
    what = write(tmp_path, form)
    assert open_source(what).name == ('the state dict' if isinstance(what, dict) else str(what))
    assert open_source(what, name='the teacher').name == 'the teacher'


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    write(tmp_path, 'pth')
    assert len(open_source('~/a.pth')) == 3


# Files of other trainers


def test_an_mmcv_1_file(tmp_path: Path) -> None:
    """ORION's layout: the meta of mmcv.runner.save_checkpoint, with numpy values and the environment as text."""
    meta = {
        'env_info': 'sys.platform: linux\nPython: 3.8.13\nCUDA: True', 'config': "model = dict(type='Orion')\n",
        'seed': np.int64(0), 'exp_name': 'orion.py', 'mmcv_version': '1.7.0', 'time': 'Mon Jan  1 00:00:00 2024',
        'CLASSES': ('car', 'van'), 'PALETTE': np.array([[1, 2, 3]], dtype=np.uint8), 'epoch': 6, 'iter': 1000,
        'hook_msgs': {'best_score': np.float64(0.5), 'best_ckpt': 'a.pth'},
    }  # fmt: skip
    optimizer = {'state': {0: {'step': 3, 'exp_avg': torch.zeros(2)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]}
    for new_format in (True, False):
        content = {'meta': meta, 'state_dict': OrderedDict(STATE), 'optimizer': optimizer}
        torch.save(content, tmp_path / 'Orion.pth', _use_new_zipfile_serialization=new_format)
        source = open_source(tmp_path / 'Orion.pth', prefix='img_backbone.')
        assert list(source) == ['blocks.10.w', 'blocks.2.w']


def test_a_lightning_file(tmp_path: Path) -> None:
    content = {
        'epoch': 3, 'global_step': 9, 'pytorch-lightning_version': '2.2.0', 'loops': {'fit_loop': {'state_dict': {}}},
        'state_dict': {f'model.{key}': value for key, value in STATE.items()}, 'callbacks': {}, 'lr_schedulers': [],
        'optimizer_states': [{'state': {}, 'param_groups': []}], 'hparams_name': 'args',
        'hyper_parameters': {'args': argparse.Namespace(lr=0.1, root=Path('data')), 'lr': 0.1},
    }  # fmt: skip
    torch.save(content, tmp_path / 'a.ckpt')
    assert list(open_source(tmp_path / 'a.ckpt', prefix='model')) == list(STATE)


def test_a_dino_file(tmp_path: Path) -> None:
    teacher = {f'module.backbone.{key}': value for key, value in STATE.items()}
    content = {'student': STATE, 'teacher': teacher, 'epoch': 3, 'args': argparse.Namespace(arch='vit')}
    torch.save(content, tmp_path / 'a.pth')
    assert list(open_source(tmp_path / 'a.pth', prefix='teacher.backbone')) == list(STATE)
    with pytest.raises(CheckpointError, match=r"Set prefix= to one of its state dicts: 'student', 'teacher'"):
        open_source(tmp_path / 'a.pth')


# What cannot be opened


@pytest.mark.filterwarnings('ignore:.*TorchScript archive')
def test_a_torchscript_program(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / 'a.pt')
    with pytest.raises(CheckpointError, match=r'a\.pt but got a TorchScript program\. Save model\.state_dict\(\)'):
        open_source(tmp_path / 'a.pt')


@pytest.mark.parametrize('content', [[1, 2], torch.zeros(3), None], ids=['list', 'tensor', 'none'])
def test_a_pickle_that_is_no_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / 'a.pt')
    with pytest.raises(
        CheckpointError, match=r'Expected a dict of tensors in .*a\.pt but got (list|Tensor|NoneType)\.'
    ):
        open_source(tmp_path / 'a.pt')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('b.pth', r'file or folder but .*b\.pth does not exist\. Did you mean .*a\.pth.*\? Check the path\.'),
        ('none/b', r'file or folder but .*none/b does not exist\. Check the path\.'),
        ('', r'one checkpoint in .* but got 2: a\.pth, b\.safetensors\. Give the path of one of them'),
    ],
)
def test_paths_that_name_nothing_or_too_much(tmp_path: Path, name: str, message: str) -> None:
    for other in ('a.pth', 'b.safetensors'):
        (tmp_path / other).touch()
    for what in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(CheckpointError, match=message):
            open_source(what)


def test_a_wrong_relative_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'runs' / 'r50').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    message = (
        r"runs/r51 does not exist\. Did you mean 'runs/r50'\? Check the path, or write hf-hub:runs/r51 for the hub"
    )
    with pytest.raises(CheckpointError, match=message):
        open_source('runs/r51')


def test_a_path_object_is_never_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r'file or folder but resnet18 does not exist'):
        open_source(Path('resnet18'))


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        (
            'https://x.org/a.pth',
            r'a file, a folder or an id but got the address https://x\.org/a\.pth\. Download it first',
        ),
        (3, r'a path, an id, a state dict or a model but got int\. Give one of these'),
        (None, r'but got NoneType'),
        ({}, r'Expected a state dict of tensors in the state dict but got no entries'),
        ({'w': 3}, r"got non-tensor entries such as \['w'\]"),
        (nn.ReLU(), r'Expected a state dict of tensors in ReLU but got no entries'),
    ],
)
def test_what_is_no_checkpoint(what: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_source(what)


@pytest.mark.parametrize('form', ['pth', 'index', 'dict', 'source'])
def test_a_subfolder_of_what_has_none(tmp_path: Path, form: str) -> None:
    with pytest.raises(CheckpointError, match=r'Expected .*folder .*but .*Omit (it|subfolder)\.'):
        open_source(write(tmp_path, form), subfolder='transformer')


def test_a_subfolder_that_is_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path, 'diffusers')
    source = open_source(folder, subfolder='transformer')
    assert (source.name, len(source)) == (f'{folder}/transformer', 3)
    with pytest.raises(CheckpointError, match=r"got 'transfomer'\. Did you mean 'transformer'\? It has transformer\."):
        open_source(folder, subfolder='transfomer')


@pytest.mark.parametrize('form', ['pth', 'folder', 'bin shards'])
def test_bombs_go_off_only_where_the_author_is_trusted(tmp_path: Path, bomb: Any, form: str) -> None:
    what = write(tmp_path, form, {**STATE, 'x': bomb})
    refused = pytest.raises(CheckpointError, match=r'asks for more .*Nothing was executed')
    with refused:
        list(open_source(what).values())
    assert not bomb.marker.exists()
    with trust_checkpoints(True), pytest.raises(CheckpointError, match=r'got non-tensor entries such as'):
        list(open_source(what).values())
    assert bomb.marker.exists()
    bomb.marker.unlink()
    with pytest.raises(CheckpointError, match=r'got non-tensor entries such as'):
        list(open_source(what, trust_checkpoint=True).values())
    assert bomb.marker.exists()


def test_trust_is_settled_when_a_source_is_opened(tmp_path: Path, bomb: Any) -> None:
    what = write(tmp_path, 'bin shards', {**STATE, 'x': bomb})
    distrusted = open_source(what)
    with trust_checkpoints(True):
        trusted = open_source(what)
        with pytest.raises(CheckpointError, match=r'asks for more .*Nothing was executed'):
            distrusted['x']
    assert not bomb.marker.exists()
    with pytest.raises(CheckpointError, match=r'got non-tensor entries such as'):
        trusted['x']
    assert bomb.marker.exists()
