from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.inherited import check_lost_hooks, check_variables, unread_names

BASE = """
data_root = 'data/old/'
max_iters = 100
crop_size = (64, 64)
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=crop_size)]
model = dict(type='EncoderDecoder', decode_head=dict(num_classes=3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root, pipeline=train_pipeline))
custom_hooks = [dict(type='kdplugin.WeightProjectionHook', source='a.pth')]
"""
KD = "model = dict(_delete_=True, type='kdplugin.Distiller', student=_base_.model)\n"


def said(folder: Path, text: str, base: str = BASE) -> list[tuple[str, str, str]]:
    (folder / 'base.py').write_text(base)
    (folder / 'child.py').write_text(f"_base_ = ['./base.py']\n{text}")
    found = Findings()
    config = Config.fromfile(str(folder / 'child.py'))
    check_variables(found, config)
    check_lost_hooks(found, config)
    return [(one.level, one.where, one.message) for one in found]


@pytest.mark.parametrize(
    'text',
    [
        '',
        "data_root = 'data/old/'",
        "data_root = 'data/new/'\ntrain_dataloader = dict(dataset=dict(data_root=data_root))",
        "data_root = 'data/new/'\ntrain_dataloader = dict(dataset=dict(data_root='data/new/'))",
        'batch_size = 2',
        'note = 3',
        'max_iters = 200\ntrain_cfg = dict(max_iters=max_iters)',
        'custom_hooks = []',
        "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook')]",
        "load_from = 'b.pth'\ncustom_hooks = [dict(type='EMAHook')]",
        f'student = dict(type="FCN")\n{KD.replace("_base_.model", "student")}',
    ],
)
def test_what_is_read_is_no_finding(tmp_path: Path, text: str) -> None:
    assert said(tmp_path, text) == []


@pytest.mark.parametrize(
    ('text', 'where', 'message'),
    [
        ("data_root = 'data/new/'", 'data_root', 'Write train_dataloader=dict(dataset=dict(data_root=data_root)).'),
        ("train_pipeline = [dict(type='LoadImageFromFile')]", 'train_pipeline', 'dict(pipeline=train_pipeline)).'),
        ('max_iters = 50', 'max_iters', 'train_cfg.max_iters keep the value of base.py. Write train_cfg=dict('),
        ('crop_size = (32, 32)', 'crop_size', 'pipeline.1.crop_size itself: write that list in full.'),
        ('batch_size = 4', 'batch_size', 'Write train_dataloader=dict(batch_size=batch_size).'),
        (f'{KD}num_classes = 5', 'num_classes', 'Write model=dict(student=dict(bbox_head=dict('),
        ("custom_hooks = [dict(type='EMAHook')]", 'custom_hooks', 'Write custom_hooks=[*_base_.custom_hooks, ...].'),
    ],
)
def test_what_nobody_reads(tmp_path: Path, text: str, where: str, message: str) -> None:
    ((level, place, told),) = said(tmp_path, text)
    assert (level, place) == ('warning', where)
    assert message in told


def test_parts_of_a_distiller_at_the_top(tmp_path: Path) -> None:
    told = said(tmp_path, f"{KD}teacher = dict(checkpoint='t.pth')\npairs = dict()")
    assert [(level, where) for level, where, _ in told] == [('error', 'teacher'), ('error', 'pairs')]
    assert 'Write model=dict(teacher=...).' in told[0][2]


def test_the_base_of_a_distillation_is_its_student(tmp_path: Path) -> None:
    base = BASE.replace('decode_head=dict(num_classes=3)', 'data_preprocessor=dict(size=crop_size)')
    ((_, _, told),) = said(tmp_path, f'{KD}crop_size = (32, 32)', base)
    assert 'model.student.data_preprocessor.size' in told


def test_files_that_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / 'bad.py').write_text('a = (')
    assert (
        list(unread_names(str(tmp_path / 'bad.py'))) == list(unread_names('gone.py')) == list(unread_names(None)) == []
    )
    (tmp_path / 'some.py').write_text('a = 1\nb: int = a\n_c = 2\nmodel = dict()')
    assert list(unread_names(str(tmp_path / 'some.py'))) == ['b']
