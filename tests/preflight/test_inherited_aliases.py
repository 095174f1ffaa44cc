from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.inherited import check_variables

BASE = """
model = dict(type='kdplugin.Distiller', student=dict(type='GFL', backbone=dict(depth=18)), pairs=dict())
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=12)
"""


def look(tmp_path: Path, line: str) -> list[tuple[str, str, str]]:
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'child.py').write_text(f"_base_ = ['./base.py']\n{line}\n")
    found = Findings()
    check_variables(found, Config.fromfile(tmp_path / 'child.py'))
    return [(one.level, one.where, one.message) for one in found]


@pytest.mark.parametrize(
    ('line', 'level', 'cure'),
    [
        ("optimizer = dict(type='SGD', lr=0.1)", 'error', 'Write optim_wrapper=dict(optimizer=...)'),
        ('train_dataloaders = dict(batch_size=4)', 'error', "Did you mean 'train_dataloader'?"),
        ('amp = True', 'warning', "Write optim_wrapper=dict(type='AmpOptimWrapper')."),
        ("hooks = [dict(type='EMAHook')]", 'warning', 'Write custom_hooks=[...].'),
        ('backbone = dict(depth=50)', 'warning', 'Write model=dict(student=dict(backbone=...)).'),
        ("algorithm = dict(type='GeneralDistill')", 'error', 'Run python tools/migrate_mmrazor.py'),
    ],
)
def test_what_others_call_a_setting_is_told_where_it_belongs(tmp_path: Path, line: str, level: str, cure: str) -> None:
    ((said, where, message),) = look(tmp_path, line)
    assert (said, where) == (level, line.partition(' ')[0])
    assert cure in message


@pytest.mark.parametrize(
    'line',
    ['amp = True\nlr = dict(a=amp)\nmodel = dict(x=lr)', "teacher_ckpt = 'x.pth'\nload_from = teacher_ckpt", 'x = 1'],
)
def test_variables_that_the_file_reads_itself_are_its_own(tmp_path: Path, line: str) -> None:
    assert look(tmp_path, line) == []


def test_a_key_that_came_in_later_is_read_by_nobody(tmp_path: Path) -> None:
    (tmp_path / 'base.py').write_text(BASE)
    config, found = Config.fromfile(tmp_path / 'base.py'), Findings()
    config.epochs = 24
    check_variables(found, config)
    assert [(one.level, one.where) for one in found] == [('warning', 'epochs')]
    assert 'Write train_cfg=dict(max_epochs=...).' in found[0].message
