"""The benchmark of the preflight in small: faults are as it says they are, and damage ends in messages."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import distilled, feature_and_logit_pairs, shared
from engine_runs import run_config
from mmengine.config import Config
from preflight_cases.damage import damaged, damaged_text, everything_in, places
from preflight_cases.faults import DROP, Fault, change, rename
from preflight_recall import FAULTS, said

from kdplugin import launch
from kdplugin.errors import KDPluginError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.verify import verify

__all__ = ['shared']

DAMAGED = 40
"""Damaged configs; the benchmark tries 2,000."""


def test_there_are_fifty_kinds_of_their_own() -> None:
    names = Counter(fault.name for fault in FAULTS)
    assert len(names) >= 50
    assert max(names.values()) == 1
    assert all(fault.where for fault in FAULTS)


def test_changes_go_to_their_paths() -> None:
    config = Config(dict(a=[dict(b=1, c=2)], d=3))
    change(config, 'a.0.b', dict(e=4))
    change(config, 'd', DROP)
    rename('a.0.c', 'f')(config)
    assert config.to_dict() == dict(a=[dict(b=dict(e=4), f=2)])


def test_a_fault_counts_with_level_path_words_and_cure() -> None:
    fault = Fault('x', 'y', {}, 'model.pairs', 'one|other', 'Do that')
    for level, where, message, right in (
        ('error', 'model.pairs.a', 'Expected other but got z. Do that.', True),
        ('warning', 'model.pairs.a', 'Expected other but got z. Do that.', False),
        ('error', 'model', 'Expected other but got z. Do that.', False),
        ('error', 'model.pairs.a', 'Expected some but got z. Do that.', False),
        ('error', 'model.pairs.a', 'Expected one but got z. Do this.', False),
    ):
        found = Findings()
        found.add(level, where, message)  # type: ignore[arg-type]
        assert said(found, fault) is right


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> Config:
    return run_config(shared, tmp_path / 'work', distilled(shared, feature_and_logit_pairs()), validate_every=2)


def test_damaged_configs_end_in_findings_and_run_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chance, before = random.Random(0), everything_in(tmp_path)  # noqa: S311
    for _ in range(DAMAGED):
        found = verify(damaged(config, chance), static=True)
        assert all(one.message and one.where for one in found)
    assert everything_in(tmp_path) == before


def test_damaged_files_end_in_one_message(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311
    text = "model = dict(type='GFL', backbone=dict(depth=18))\ndefault_scope = 'mmdet'\n"
    read, messages = 0, []
    for number in range(DAMAGED):
        file = tmp_path / f'config_{number}.py'
        file.write_bytes(damaged_text(text, chance))
        try:
            launch.read_config(file)
            read += 1
        except KDPluginError as error:
            messages.append(str(error))
    assert 0 < read < DAMAGED
    assert all(message.startswith('Expected') for message in messages)


@pytest.mark.parametrize('kind', ['os.system', 'subprocess.Popen', 'builtins.exec'])
@pytest.mark.parametrize(
    'where', ['model.student.backbone', 'train_dataloader.dataset', 'custom_hooks.0', 'visualizer']
)
def test_programs_in_the_place_of_types_are_not_run(
    kind: str, where: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config.custom_hooks = [dict(type='EMAHook')]
    arguments: dict[str, Any] = dict(
        command='touch executed', args=['touch', 'executed'], source='open("executed", "w")'
    )
    change(config, where, dict(type=kind, **arguments))
    found = verify(config)
    assert any(one.where == f'{where}.type' for one in found.errors)
    assert not (tmp_path / 'executed').exists()


def test_every_place_of_a_config_can_be_damaged() -> None:
    assert list(places(dict(a=[1, dict(b=2)]))) == [('a',), ('a', 0), ('a', 1), ('a', 1, 'b')]
