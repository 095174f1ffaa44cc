"""The benchmark of steps: its arithmetic, the order of turns, what takes turns, MMRazor's stand-ins."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor
from torch import nn

from kdplugin.errors import ConfigError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import step_time  # noqa: E402
import step_time_cases  # noqa: E402
from step_time import alternate, row_of, run_all, spread  # noqa: E402
from step_time_cases import CASES, EvaPyramid, configs, teacher_forward, training_step  # noqa: E402
from step_time_rival import EmptyModule, load_rival  # noqa: E402

TIMES = {
    'student': [100.0, 110.0, 120.0],
    'teacher': [50.0, 50.0, 90.0],
    'ours': [150.0, 144.0, 168.0],
    'SingleTeacherDistill': [200.0, 220.0, 240.0],
    'FpnTeacherDistill': [160.0, 160.0, 160.0],
}


def test_the_ratio_is_ours_to_student_and_teacher() -> None:
    row = row_of(CASES['gfl_neck'], 'float32', TIMES)
    assert (row['student_ms'], row['teacher_ms'], row['ours_ms'], row['mmrazor_ms']) == (110, 50, 150, 160)
    assert row['ratio'] == round(150 / 160, 3)
    assert row['mmrazor_each_ms'] == {'SingleTeacherDistill': 220, 'FpnTeacherDistill': 160}
    assert row['ours_to_mmrazor'] == round(150 / 160, 3)
    assert row['ratio_quartiles'] == [0.8, 1.0]  # of 1.0, 0.9, 0.8


def test_with_a_cache_the_ratio_is_ours_to_the_student() -> None:
    row = row_of(CASES['gfl_neck_cached'], 'float32', TIMES)
    assert row['ratio'] == round(150 / 110, 3)
    assert row['ratio_quartiles'] == [1.309, 1.5]  # of 1.5, 1.309, 1.4


def test_without_a_rival_there_is_no_number_of_it() -> None:
    row = row_of(CASES['gfl_head'], 'float32', {name: TIMES[name] for name in ('student', 'teacher', 'ours')})
    assert row['mmrazor_ms'] is None
    assert 'ours_to_mmrazor' not in row
    assert spread([3.0]) == [3.0, 3.0]


def test_everybody_takes_turns_and_begins_once() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in 'abc'}  # type: ignore[misc]
    times = alternate(steps, 3, 'cpu')
    assert ''.join(calls) == 'abc' + 'abc' + 'bca' + 'cab'  # the first is not counted
    assert {name: len(values) for name, values in times.items()} == {'a': 3, 'b': 3, 'c': 3}


def test_cases_are_those_of_the_question() -> None:
    assert list(CASES) == ['gfl_neck', 'gfl_head', 'vit_neck', 'gfl_neck_cached']
    assert CASES['gfl_neck'].rivals == ('SingleTeacherDistill', 'FpnTeacherDistill')
    assert CASES['gfl_head'].rivals == ('SingleTeacherDistill',)  # the other runs no head
    student, teacher = configs(CASES['gfl_head'], 320)
    assert (student['backbone']['depth'], teacher['backbone']['depth']) == (50, 101)
    assert 'init_cfg' not in student['backbone']
    _, vit = configs(CASES['vit_neck'], 320)
    assert vit['backbone'] == {'type': 'mmengine.EvaPyramid', 'img_size': 320}
    assert vit['neck']['in_channels'] == [768] * 3
    assert vit['neck']['out_channels'] == student['neck']['out_channels']


def test_a_vision_transformer_has_the_strides_of_a_pyramid() -> None:
    tower = EvaPyramid(64, 'eva02_tiny_patch14_224').eval()
    with torch.no_grad():
        shapes = [tuple(level.shape) for level in tower(torch.randn(2, 3, 64, 64))]
    channels = shapes[1][1]
    assert shapes == [(2, channels, 8, 8), (2, channels, 4, 4), (2, channels, 2, 2)]


def test_a_step_trains_and_a_teachers_pass_stops_at_its_tap() -> None:
    model: Any = build(segmentor())
    batch = step_time_cases.synthetic_batch(model, (32, 32), 2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    training_step(model, batch)()
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())
    heads: list[nn.Module] = []
    model.decode_head.conv_seg.register_forward_hook(lambda module, *_: heads.append(module))
    teacher_forward(CASES['gfl_neck'], model, batch)()
    assert heads == []
    teacher_forward(CASES['gfl_head'], model, batch)()
    assert heads == [model.decode_head.conv_seg]
    assert not model.training


def test_rows_of_other_cases_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(call: Any, case: Any, dtype: str, *_: Any) -> Any:
        if call is step_time.teacher_difference:
            return 1.26e-6
        return {'case': case.name, 'teacher_dtype': dtype, 'device': 'D', 'ratio': 2}

    monkeypatch.setattr(step_time, 'in_process', measured)
    out = tmp_path / 'out.json'
    old = [{'case': name, 'teacher_dtype': 'float32', 'device': 'D', 'ratio': 1} for name in ('gfl_neck', 'gfl_head')]
    out.write_text(json.dumps({'rows': [*old, {**old[0], 'device': 'other'}]}))
    run_all(Namespace(cases=['gfl_neck'], dtypes=['float32'], out=out, memory=False, rival=None, size=320))
    written = json.loads(out.read_text())['rows']
    assert written[-1]['teacher_difference'] == 1.3e-6
    rows = [(row['case'], row['device'], row['ratio']) for row in written]
    assert rows == [('gfl_head', 'D', 1), ('gfl_neck', 'other', 1), ('gfl_neck', 'D', 2)]


def test_what_stands_for_quantization_has_every_name() -> None:
    package = EmptyModule('mmrazor.models.quantizers')
    assert isinstance(package.BaseQuantizer, type)
    with pytest.raises(AttributeError):
        package.__wrapped__  # noqa: B018
    with pytest.raises(AttributeError):
        package.__file__  # noqa: B018


def test_a_folder_without_the_rival(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Expected a checkout of MMRazor at .* but found none\. Clone it'):
        load_rival(tmp_path)


def test_our_teacher_says_what_the_eager_one_says() -> None:
    setup = Namespace(size=64, images=1, device='cpu')
    assert step_time.teacher_difference(CASES['gfl_neck'], 'float32', setup) <= 1e-5
    assert 1e-5 < step_time.teacher_difference(CASES['gfl_neck'], 'bfloat16', setup) <= 5e-2
