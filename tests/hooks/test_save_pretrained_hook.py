"""The folder of a trained student; whole runs are in tests/distill/diffusion/test_diffusion_distiller.py."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.hooks.save_pretrained_hook import SavePretrainedHook


class Savable(nn.Module):
    """Writes its name where it is saved."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def save_pretrained(self, folder: Path) -> None:
        Path(folder).write_text(self.name)


def runner(folder: Path, model: nn.Module, *hooks: Any) -> Any:
    return SimpleNamespace(work_dir=str(folder), model=model, hooks=list(hooks), logger=logging.getLogger('test'))


def test_the_student_is_written_where_asked(tmp_path: Path) -> None:
    hook = SavePretrainedHook('mine')
    hook.before_run(runner(tmp_path, Savable('student')))
    assert not (tmp_path / 'mine').exists()
    hook.after_train(runner(tmp_path, Savable('student')))
    assert (tmp_path / 'mine').read_text() == 'student'
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_an_average_is_written_beside_it(tmp_path: Path) -> None:
    ema = SimpleNamespace(ema_model=SimpleNamespace(module=Savable('average')))
    SavePretrainedHook().after_train(runner(tmp_path, Savable('student'), ema))
    assert (tmp_path / 'student').read_text() == 'student'
    assert (tmp_path / 'student_ema').read_text() == 'average'


def test_other_models_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Expected a model of diffusers for SavePretrainedHook but got Linear'):
        SavePretrainedHook().before_run(runner(tmp_path, nn.Linear(1, 1)))
