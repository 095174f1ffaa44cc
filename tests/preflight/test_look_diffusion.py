from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from wan_fixtures import pipeline

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.preflight.look import list_layers

__all__ = ['pipeline']
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(pipeline: Path) -> Config:
    whole = Config.fromfile(ROOT / 'configs/wan/wan-lite_tiny.py')
    whole.model.teacher.path = str(pipeline)
    return whole


@pytest.mark.parametrize('owner', ['student', 'teacher'])
def test_both_models_are_listed_as_a_dry_run_sees_them(config: Config, owner: str) -> None:
    layers, how = list_layers(config, owner)
    height, width = config.model.flow.size
    by_path = {layer.path: layer for layer in layers}
    assert how.startswith(f'on latents of {height}x{width} and ')
    for pair in config.model.pairs.values():
        tap = by_path[pair[f'{owner}_tap']]
        assert tap.fires == 1
        assert tap.stride is None
        assert tap.shapes[0][:2] == (1, height * width // 4)
    assert by_path['blocks.0'].parameters > 0


def test_layers_of_14_billion_parameters_are_listed_without_them(config: Config, tmp_path: Path) -> None:
    """The sizes of Wan2.2-T2V-A14B, as its config.json gives them: 40 blocks of width 5120."""
    config.model.student.update(hidden_size=5120, depth=40, num_heads=40, rope_head_dim=128, ffn_size=13824)
    layers, _ = list_layers(config, 'student')
    total = sum(layer.parameters for layer in layers if '.' not in layer.path)
    assert total > 14e9


def test_what_is_not_there(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one of \['student', 'teacher'\] but got 'techer'. Did you mean 'teacher'"):
        list_layers(config, 'techer')
    config.model.teacher.path = str(tmp_path / 'gone')
    with pytest.raises((CheckpointError, ConfigError), match='gone'):
        list_layers(config, 'teacher')
