"""What importing does and does not do, seen from fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path) -> Any:
    """Run code in a new Python process and return the JSON of the last line it prints."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


BASES = {
    'mmseg': 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py',
    'mmdet': 'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
}


@pytest.fixture(scope='module')
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a process that imports mmengine alone comes to see."""
    folder = tmp_path_factory.mktemp('fresh')
    for name, base in BASES.items():
        (folder / f'on_{name}.py').write_text(
            f"_base_ = ['{base}']\n"
            "model = dict(_delete_=True, type='kdplugin.Distiller', student=_base_.model, pairs=dict())\n"
        )
    code = """
import json, sys
from mmengine.config import Config
from mmengine.registry import HOOKS, MODEL_WRAPPERS, MODELS, OPTIM_WRAPPERS, DefaultScope
from mmengine.runner import CheckpointLoader

def readers():
    return sorted({loader.__module__ for loader in CheckpointLoader._schemes.values()})

seen = dict(ours_before='kdplugin' in sys.modules, readers_before=readers())
loss = MODELS.build(dict(type='kdplugin.KLDivergenceLoss', temperature=4.0))
seen.update(loss=[type(loss).__module__, loss.temperature], readers_after=readers())
losses = sys.modules['kdplugin.losses'].__all__
kinds = {name: MODELS.build(dict(type=f'kdplugin.{name}')) for name in losses if name.endswith('Loss')}
seen['losses'] = {name: type(kind).__qualname__ for name, kind in kinds.items()}
seen['models'] = [MODELS.get(f'kdplugin.{name}').__name__ for name in ('Distiller', 'CosineLoss', 'MobileNetV3Small')]
seen['hooks'] = [HOOKS.get(f'kdplugin.{name}').__name__ for name in ('DistillationHook', 'SafeCheckpointHook')]
seen['wrappers'] = [
    MODEL_WRAPPERS.get('kdplugin.CPUDistributedDataParallel').__name__,
    OPTIM_WRAPPERS.get('kdplugin.CPUAmpOptimWrapper').__name__,
]
for scope in ('mmdet', 'mmseg'):
    with DefaultScope.overwrite_default_scope(scope):
        seen[f'loss within {scope}'] = type(MODELS.build(dict(type='kdplugin.CosineLoss'))).__name__
    config = Config.fromfile(f'on_{scope}.py')
    seen[f'config of {scope}'] = [config.model.type, config.model.student.type, config.default_scope]
print(json.dumps(seen))
"""
    return run(code, folder)


def test_types_with_our_prefix_are_found_by_mmengine_alone(seen: dict[str, Any]) -> None:
    assert seen['ours_before'] is False
    assert seen['loss'] == ['kdplugin.losses.kl_divergence', 4.0]
    assert {'PKDLoss', 'CWDLoss', 'LocalizationDistillationLoss'} < seen['losses'].keys()
    assert all(name == kind for name, kind in seen['losses'].items())
    assert seen['models'] == ['build_distiller', 'CosineLoss', 'MobileNetV3Small']
    assert seen['hooks'] == ['DistillationHook', 'SafeCheckpointHook']
    assert seen['wrappers'] == ['CPUDistributedDataParallel', 'CPUAmpOptimWrapper']


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_they_are_found_within_the_scopes_of_the_hosts(seen: dict[str, Any], scope: str) -> None:
    assert seen[f'loss within {scope}'] == 'CosineLoss'


def test_checkpoints_are_safe_as_soon_as_a_type_of_ours_is_met(seen: dict[str, Any]) -> None:
    assert seen['readers_before'] == ['mmengine.runner.checkpoint']
    assert seen['readers_after'] == ['kdplugin.checkpoint_schemes']


@pytest.mark.parametrize(('scope', 'student'), [('mmseg', 'EncoderDecoder'), ('mmdet', 'GFL')])
def test_configs_of_the_hosts_can_be_inherited(seen: dict[str, Any], scope: str, student: str) -> None:
    assert seen[f'config of {scope}'] == ['kdplugin.Distiller', student, scope]


def test_weights_need_no_host_and_importing_them_is_light(tmp_path: Path) -> None:
    code = """
import json, sys
sys.modules.update(dict.fromkeys(('mmengine', 'mmcv', 'mmdet', 'mmseg')))
import kdplugin, kdplugin.errors
bare = [name for name in ('torch', 'numpy') if name in sys.modules]
import kdplugin.module_paths, kdplugin.weights.reading.io, kdplugin.weights.export
heavy = ('torchvision', 'matplotlib', 'sklearn', 'scipy', 'rich', 'timm', 'pandas')
brought = [name for name in heavy if name in sys.modules]
import torch
from kdplugin.weights.reading.io import read_checkpoint, write_checkpoint
write_checkpoint({'w': torch.ones(2)}, 'a.pth')
print(json.dumps(dict(bare=bare, brought=brought, read=read_checkpoint('a.pth')['w'].tolist())))
"""
    assert run(code, tmp_path) == dict(bare=[], brought=[], read=[1, 1])
