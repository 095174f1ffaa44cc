from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from kdplugin.errors import CheckpointError
from kdplugin.weights.export import export_student, student_weights
from kdplugin.weights.reading.io import read_checkpoint

META = {
    'dataset_meta': {'classes': ('cat', 'dog'), 'palette': [[1, 2, 3], [4, 5, 6]]},
    'kdplugin': {'version': '0.1.0', 'teacher': {'checkpoint': 't.pth', 'sha256': 'ab' * 32}},
}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'backbone.conv.weight': torch.rand(4, 3, 3, 3, generator=generator),
        'backbone.bn.num_batches_tracked': torch.tensor(7),
        'head.bias': torch.rand(2, generator=generator),
    }


def training_checkpoint(path: Path, state: dict[str, torch.Tensor] | None = None, **extra: Any) -> Path:
    torch.save(
        {
            'meta': {**META, 'cfg': 'model = dict()', 'iter': 5, 'time': 'now'},
            'state_dict': OrderedDict(state or weights()),
            'optimizer': {'state': {0: {'momentum_buffer': torch.zeros(10_000)}}},
            'param_schedulers': [],
            'message_hub': {},
            'kdplugin': {'adapters': {'low.weight': torch.ones(3)}},
            **extra,
        },
        path,
    )
    return path


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_exactly_the_student_is_written(tmp_path: Path, ending: str) -> None:
    source = training_checkpoint(tmp_path / 'iter_5.pth')
    report = export_student(source, tmp_path / f'student{ending}')
    content = read_checkpoint(report.target)
    assert set(content) - {'meta'} == {'state_dict'}
    assert sorted(content['state_dict']) == sorted(weights())
    for key, value in weights().items():
        assert content['state_dict'][key].dtype == value.dtype
        torch.testing.assert_close(content['state_dict'][key], value, rtol=0, atol=0)
    assert (report.tensors, report.values, report.weights_bytes) == (3, 108 + 1 + 2, 110 * 4 + 8)
    assert report.bytes_before == source.stat().st_size
    assert report.bytes_after == Path(report.target).stat().st_size < report.bytes_before / 10
    assert report.dropped == ('kdplugin', 'message_hub', 'optimizer', 'param_schedulers')
    assert report.averaged is False


def test_a_pth_keeps_classes_and_the_teachers_hash_and_plain_torch_loads_it(tmp_path: Path) -> None:
    export_student(training_checkpoint(tmp_path / 'a.pth'), tmp_path / 'b.pth')
    content = torch.load(tmp_path / 'b.pth', weights_only=True)
    assert content['meta'] == META
    assert set(content) == {'meta', 'state_dict'}


def test_a_safetensors_header_holds_the_same_as_json(tmp_path: Path) -> None:
    palette = {'dataset_meta': {'classes': ('cat',), 'palette': np.array([[1, 2, 3]])}}
    export_student(training_checkpoint(tmp_path / 'a.pth', meta=palette), tmp_path / 'b.safetensors')
    with safe_open(tmp_path / 'b.safetensors', 'pt') as file:
        header = file.metadata()
    assert json.loads(header['dataset_meta']) == {'classes': ['cat'], 'palette': [[1, 2, 3]]}
    assert set(header) == {'dataset_meta'}


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_views_and_tied_weights_bring_no_hidden_storage(tmp_path: Path, ending: str) -> None:
    large = torch.rand(100_000)
    tied = torch.rand(2, 2)
    state = {'view': large[:2], 'a': tied, 'b': tied, 'turned': torch.rand(3, 2).t()}
    report = export_student(training_checkpoint(tmp_path / 'a.pth', state), tmp_path / f'b{ending}')
    assert report.bytes_after < 20_000
    exported = read_checkpoint(report.target)['state_dict']
    assert torch.equal(exported['a'], exported['b'])
    assert torch.equal(exported['turned'], state['turned'])


def test_with_ema_the_averaged_weights_are_the_ones_that_mmengine_put_first(tmp_path: Path) -> None:
    """EMAHook swaps before it saves: ``state_dict`` holds what was validated."""
    raw = {f'module.{key}': value + 1 for key, value in weights().items()}
    source = training_checkpoint(tmp_path / 'a.pth', ema_state_dict={**raw, 'steps': torch.tensor(3)})
    report = export_student(source, tmp_path / 'b.pth')
    assert report.averaged is True
    assert 'ema_state_dict' in report.dropped
    exported = read_checkpoint(report.target)['state_dict']
    assert torch.equal(exported['head.bias'], weights()['head.bias'])


@pytest.mark.parametrize('key', ['teacher.conv.weight', 'architecture.backbone.weight', '_kd.low.weight', 'a._kd.b'])
def test_a_teacher_or_adapters_among_the_weights_are_refused_and_nothing_is_written(tmp_path: Path, key: str) -> None:
    source = training_checkpoint(tmp_path / 'a.pth', {**weights(), key: torch.ones(1)})
    message = rf'Expected the weights of a student in .*a\.pth but got 1 keys of a teacher or of adapters.*{key}'
    with pytest.raises(CheckpointError, match=message):
        export_student(source, tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_names_that_only_look_alike_are_a_students_own() -> None:
    own = {'backbone.teacher_forcing.weight': torch.ones(1), 'head_kd.bias': torch.ones(1)}
    assert student_weights(own).keys() == own.keys()


@pytest.mark.parametrize('target', ['b.onnx', 'b'])
def test_another_ending_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(CheckpointError, match=r'Expected OUT to end in \.pth or \.safetensors but got .*b'):
        export_student(training_checkpoint(tmp_path / 'a.pth'), tmp_path / target)


def test_the_training_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    source = training_checkpoint(tmp_path / 'a.pth')
    before = source.read_bytes()
    (tmp_path / 'link.pth').symlink_to(source)
    for target in (source, tmp_path / 'link.pth'):
        with pytest.raises(CheckpointError, match=r'Expected OUT to be another file but got the checkpoint'):
            export_student(source, target)
    assert source.read_bytes() == before


def test_exporting_an_export_changes_nothing(tmp_path: Path) -> None:
    export_student(training_checkpoint(tmp_path / 'a.pth'), tmp_path / 'b.safetensors')
    report = export_student(tmp_path / 'b.safetensors', tmp_path / 'c.pth')
    assert report.dropped == ()
    assert torch.equal(read_checkpoint(report.target)['state_dict']['head.bias'], weights()['head.bias'])


def test_export_needs_no_openmmlab_package() -> None:
    blocked = 'import sys\nfor name in ("mmengine", "mmcv", "mmdet", "mmseg"): sys.modules[name] = None\n'
    code = blocked + 'from kdplugin.weights.export import export_student'
    subprocess.run([sys.executable, '-c', code], check=True)
