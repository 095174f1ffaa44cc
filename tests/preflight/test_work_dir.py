from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.work_dir import check_own_work_dir, check_work_dir, check_writable, work_dir_of


def test_the_command_line_wins_over_the_config_and_the_config_over_its_name(tmp_path: Path) -> None:
    (tmp_path / 'kd.py').write_text("work_dir = 'here'\n")
    config = Config.fromfile(tmp_path / 'kd.py')
    assert work_dir_of(config, 'there') == Path('there')
    assert work_dir_of(config) == Path('here')
    config.work_dir = None
    assert work_dir_of(config) == Path('work_dirs/kd')


def test_a_folder_below_a_file_cannot_be_written_by_anybody(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match=r'Expected a writable work dir but .*file/runs is not: Not a directory'):
        check_writable(tmp_path / 'file' / 'runs')


def test_the_check_leaves_no_trace(tmp_path: Path) -> None:
    found = Findings()
    check_work_dir(found, Config(dict(work_dir=str(tmp_path / 'a' / 'b'))))
    assert found == []
    assert list(tmp_path.iterdir()) == []


def test_a_work_dir_of_an_earlier_run_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / 'iter_10.pth').touch()
    check_work_dir(Findings(), Config(dict(work_dir=str(tmp_path))))
    assert [path.name for path in tmp_path.iterdir()] == ['iter_10.pth']


def test_the_teachers_checkpoint_lies_elsewhere(tmp_path: Path) -> None:
    """A run that resumes takes the newest file of its work dir."""
    teacher = dict(cfg='a.py', checkpoint=str(tmp_path / 'teacher' / 'iter_800.pth'))
    for place, expected in (('teacher', ['work_dir']), ('student', [])):
        found = Findings()
        config = Config(dict(work_dir=str(tmp_path / place), model=dict(type='kdplugin.Distiller', teacher=teacher)))
        check_own_work_dir(found, config)
        assert [one.where for one in found.errors] == expected
        assert all('choose another one with --work-dir' in one.message for one in found)
    check_own_work_dir(found, Config(dict(model=dict(type='GFL'))))
    assert found == []
