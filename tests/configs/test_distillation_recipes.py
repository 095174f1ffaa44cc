"""The recipes of published pairs: they inherit, parse, say where their numbers come from, and take a step."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.config.config
import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from kdplugin import launch
from kdplugin.distill import build_distiller, distillation_of
from kdplugin.distill.model_config import is_distiller
from kdplugin.distill.pairs import parse_pairs
from kdplugin.distill.probe import synthetic_batch
from kdplugin.distill.settings import distiller_mistakes
from kdplugin.distill.teachers.teacher import build_teacher_model
from kdplugin.module_paths import find_module

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / 'configs/detection').glob('*.py'), *(ROOT / 'configs/segmentation').glob('*cityscapes*.py')])
RECIPES = [path for path in FILES if 'kdplugin.Distiller' in path.read_text() or path.name.startswith('crosskd-pkd')]
QUICK = ('cwd_gfl-r101_gfl-r50_1x_coco', 'cwd_pspnet-r101_pspnet-r18_80k_cityscapes-512x1024')
PUBLISHED = {
    'cwd_gfl-r101_gfl-r50_1x_coco': '40.2 -> 41.9',
    'crosskd_gfl-r101_gfl-r50_1x_coco': '40.2 -> 43.7',
    'crosskd-pkd_gfl-r101_gfl-r50_1x_coco': '40.2 -> 43.9',
    'pkd_retinanet-x101_retinanet-r50_2x_coco': '37.4 -> 40.8',
    'pkd_mask-rcnn-swin-s_retinanet-r50_2x_coco': '37.4 -> 41.5',
    'fgd_retinanet-x101_retinanet-r50_2x_coco': '37.4 -> 40.7',
    'mgd_retinanet-x101_retinanet-r50_2x_coco': '37.4 -> 41.0',
    'ld_gfl-r101_gfl-r50_1x_coco': '40.1 -> 42.1',
    'mgd_cascade-mask-rcnn-x101-dcn_mask-rcnn-r50_2x_coco': '35.4 -> 38.1',
    'cwd_pspnet-r101_pspnet-r18_80k_cityscapes-512x1024': '74.87 -> 75.54',
    'dist_pspnet-r101_pspnet-r18_80k_cityscapes-512x1024': '72.55 -> 76.31',
}


@pytest.fixture(autouse=True)
def straight_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``mmdet::`` mean the file at once; mmengine reads every metafile of the package to find the same."""
    monkeypatch.setattr(mmengine.config.config, '_get_external_cfg_path', _straight)
    monkeypatch.chdir(ROOT)


def _straight(package: str, path: str) -> str:
    file = Path(package) / '.mim' / 'configs' / path
    assert file.is_file()
    return str(file)


read = functools.cache(launch.read_config)


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize('path', FILES, ids=stem)
def test_header_says_source_numbers_command_and_cost(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith('#')]
    for part in (
        '# Source: ',
        '# Published: ',
        '# Weights: ',
        '# Train: ',
        '# Expected: not measured here.',
        '# Cost: ',
    ):
        assert sum(line.startswith(part) for line in header) == 1, part
    assert any(f'configs/{path.parent.name}/{path.name} ' in line for line in header)


def test_the_table_of_published_pairs_is_here() -> None:
    texts = {path.stem: path.read_text() for path in FILES}
    assert {name: numbers for name, numbers in PUBLISHED.items() if f'# Published: {numbers}' not in texts[name]} == {}


def test_some_student_and_some_teacher_come_from_timm() -> None:
    distillers = [read(path).model for path in RECIPES if 'timm' in path.name]
    assert any(model.student.backbone.type == 'kdplugin.TimmBackbone' for model in distillers)
    assert any('timm' in str(model.teacher.cfg) for model in distillers)


@pytest.mark.parametrize('path', RECIPES, ids=stem)
def test_keys_and_pairs_are_right(path: Path) -> None:
    config = read(path)
    assert is_distiller(config.model)
    assert list(distiller_mistakes({key: value for key, value in config.model.items() if key != 'type'})) == []
    assert all(pair.method for pair in parse_pairs(config.model.pairs))
    assert 'student' not in config
    assert config.train_cfg.get('max_epochs', config.train_cfg.get('max_iters')) in (12, 24, 80_000)


def models(config: Config) -> Iterator[tuple[str, nn.Module]]:
    student = dict(config.model.student, _scope_=config.default_scope)
    yield 'student', build_teacher_model(dict(model=student))
    yield 'teacher', build_teacher_model(config.model.teacher)


@pytest.mark.parametrize('name', QUICK)
def test_taps_are_modules_of_both_models(name: str) -> None:
    config = read(next(path for path in RECIPES if path.stem == name))
    pairs = parse_pairs(config.model.pairs)
    with torch.device('meta'):
        for owner, model in models(config):
            for pair in pairs:
                for tap in getattr(pair, f'{owner}_taps'):
                    find_module(model, tap, owner)


@pytest.mark.slow
@pytest.mark.parametrize('path', RECIPES, ids=stem)
def test_recipe_takes_a_step(path: Path, tmp_path: Path) -> None:
    """Full-size models with random weights on one small image: every pair pulls at the student."""
    config = read(path)
    model: dict[str, Any] = config.model.to_dict()
    torch.manual_seed(0)
    teacher = build_teacher_model(model['teacher'])
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    del teacher
    model['teacher']['checkpoint'] = str(tmp_path / 'teacher.pth')
    model['student'] = ConfigDict(without_weights(model['student']), _scope_=config.default_scope)
    student = build_distiller(**{key: value for key, value in model.items() if key != 'type'}).train()
    inputs, samples = synthetic_batch(student, (128, 160), 2)
    losses = student(inputs, samples, mode='loss')
    distillation = distillation_of(student)
    assert distillation is not None
    assert [pair.name for pair in distillation.active] == list(model['pairs'])
    own = [value for name, value in student.named_parameters() if value.requires_grad and '_kd' not in name]
    for pair in distillation.active:
        term = losses[f'kd_{pair.name}_raw']
        assert torch.isfinite(term)
        gradients = torch.autograd.grad(losses[f'loss_kd_{pair.name}'], own, retain_graph=True, allow_unused=True)
        assert any(value is not None and value.count_nonzero() for value in gradients), pair.name


def without_weights(value: Any) -> Any:
    """Leave out what would be downloaded."""
    if isinstance(value, dict):
        items = {key: without_weights(item) for key, item in value.items()}
        weights = ('init_cfg',) if (items.get('init_cfg') or {}) and 'checkpoint' in str(items['init_cfg']) else ()
        return {key: item for key, item in items.items() if key not in (*weights, 'pretrained')}
    return value
