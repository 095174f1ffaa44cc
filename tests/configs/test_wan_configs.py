"""The recipes for Wan: they parse, their keys are right, and the real one's plan covers the whole student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin import launch
from kdplugin.distill.diffusion.diffusion_distiller import diffusion_mistakes
from kdplugin.hooks.weight_projection_hook import WeightProjectionHook
from kdplugin.module_paths import find_module
from kdplugin.weights.layouts.skeletons import wan_layout
from kdplugin.weights.project import plan_for, report_for
from kdplugin.weights.reading.source import open_source

ROOT = Path(__file__).parents[2]
CONFIGS = ['wan-lite_tiny.py', 'wan-lite_1024x16_wan22-a14b.py']


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('name', CONFIGS)
def test_recipes_have_no_mistakes_and_run_with_the_hooks_they_need(name: str, tmp_path: Path) -> None:
    config = launch.read_config(ROOT / 'configs' / 'wan' / name)
    assert not list(diffusion_mistakes({key: value for key, value in config.model.items() if key != 'type'}))
    kinds = [hook.type for hook in launch.prepare(config, work_dir=str(tmp_path)).custom_hooks]
    assert kinds[-1] == 'kdplugin.DistillationHook'
    assert {'kdplugin.WeightProjectionHook', 'kdplugin.SavePretrainedHook'} <= set(kinds)
    assert config.model.teacher.path == config.teacher
    hook = next(hook for hook in config.custom_hooks if 'Projection' in hook.type)
    assert hook.source == config.teacher
    head = config.model.student.hidden_size // config.model.student.num_heads
    assert config.model.student.rope_head_dim >= head
    WeightProjectionHook(**{key: value for key, value in hook.items() if key != 'type'})


def test_the_real_student_is_covered_whole_by_one_expert_of_a14b() -> None:
    """On the meta device: names, shapes, layers and axis groups, and taps that are there."""
    config = launch.read_config(ROOT / 'configs' / 'wan' / CONFIGS[1])
    with torch.device('meta'):
        student = MODELS.build(config.model.student)
    hook = next(hook for hook in config.custom_hooks if 'Projection' in hook.type)
    source = open_source(wan_layout())
    report = report_for(plan_for(source, student, heads=dict(hook.heads)), source)
    report.require(hook.min_coverage)
    assert report.coverage == {'tensors': 1.0, 'parameters': 1.0}
    assert report.plan['blocks.7.attn2.to_v.weight'].sources == ('blocks.18.attn2.to_v.weight',)
    assert report.plan['blocks.15.ffn.net.2.weight'].sources == ('blocks.39.ffn.net.2.weight',)
    heads = [group for group in report.plan.groups.values() if group.kind == 'heads']
    assert {(group.unit, group.target_unit) for group in heads} == {(128, 64)}
    json.loads(report.plan.to_json())
    depth = {'student': 16, 'teacher': 40}
    for pair in config.model.pairs.values():
        find_module(student, pair.student_tap, 'student')
        assert int(pair.teacher_tap.split('.')[1]) < depth['teacher']
