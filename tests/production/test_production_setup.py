"""Configs of the test's runs: the teacher everywhere, whole rounds, random starts without projection."""

from __future__ import annotations

from pathlib import Path

import pytest
from wan_fixtures import pipeline

from kdplugin.errors import ConfigError
from kdplugin.production.setup import Settings, half, prepare_teacher, run_config

__all__ = ['pipeline']
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def projections(config: object) -> list[str]:
    return [hook.source for hook in config.custom_hooks if 'Projection' in hook.type]  # type: ignore[attr-defined]


def test_the_teacher_is_the_same_everywhere(tmp_path: Path) -> None:
    config = run_config(Settings(tmp_path, seed=4), 'one', 'folder')
    assert config.model.teacher.path == 'folder'
    assert projections(config) == ['folder']
    assert config.work_dir == str(tmp_path / 'one')
    assert config.randomness.seed == 4
    assert projections(run_config(Settings(tmp_path), 'two', 'folder', projected=False)) == []


def test_epochs_are_whole_rounds_through_the_prompts(tmp_path: Path) -> None:
    config = run_config(Settings(tmp_path, epochs=3, batch_size=10), 'one', 'folder')
    assert config.train_dataloader.batch_size == 10
    assert config.train_cfg.max_iters == 3 * 6
    assert config.param_scheduler[0].total_steps == 18
    assert half(config) == 9


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(epochs=0), 'epochs of at least 1 but got 0'),
        (dict(batch_size=0), 'batch size of at least 1 but got 0'),
    ],
)
def test_less_than_one_is_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config(Settings(tmp_path, **settings), 'one', 'folder')  # type: ignore[arg-type]


def test_a_real_teacher_comes_with_the_real_config(tmp_path: Path) -> None:
    settings = Settings(tmp_path, teacher='weights/wan')
    assert prepare_teacher(settings) == 'weights/wan'
    config = run_config(settings, 'one', 'weights/wan')
    assert config.model.student.hidden_size == 1024
    assert projections(config) == ['weights/wan']
