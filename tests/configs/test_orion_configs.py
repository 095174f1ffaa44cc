"""The configs for Bench2Drive pass every check on invented frames, at the size of a tiny backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from kdplugin import launch
from kdplugin.datasets.bench2drive_fixture import write_fixture
from kdplugin.models.detectors.orion_file import write_orion_checkpoint
from kdplugin.preflight.verify import verify
from kdplugin.pruning.plan import PruningPlan

CONFIGS = Path(__file__).parents[2] / 'configs' / 'orion'
TINY = dict(img_size=128, embed_dim=64, depth=3, window_size=4, pretrain_img_size=64)
HIDDEN = int(64 * 8 / 3)
NEURONS = {'8heads': tuple(range(HIDDEN)), 'half': tuple(range(0, HIDDEN, 2))}
BLOCKS = {5: 0, 11: 1, 17: 1, 23: 2}


def tiny_config(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return a real config on invented frames and weights, with a backbone of three blocks."""
    write_fixture(folder / 'data', frames=2)
    write_orion_checkpoint(folder / 'Orion.pth', num_heads=4, **TINY)
    heads = ((0, 2), (1, 3), (0, 1))
    PruningPlan(heads, (NEURONS[name],) * 3, 4, HIDDEN, 16, 'img_backbone.').write(folder / 'plan.json')
    places = dict(B2D_ROOT='data', ORION_CKPT='Orion.pth', ORION_PLAN='plan.json')
    for key, value in places.items():
        monkeypatch.setenv(key, str(folder / value))
    monkeypatch.setenv('ORION_SIZE', '128')
    options = {f'model.student.backbone.{key}': value for key, value in TINY.items()}
    options |= {f'model.teacher.model.backbone.{key}': value for key, value in dict(TINY, num_heads=4).items()}
    options |= {f'model.pairs.features_{old}.tap': f'backbone.blocks.{new}' for old, new in BLOCKS.items()}
    options |= {'model.pairs.attention.blocks': [0, 2], 'work_dir': str(folder / 'run')}
    options |= {'train_dataloader.dataset.image_size': [90, 160], 'train_dataloader.dataset.interval': 1}
    return launch.read_config(CONFIGS / f'orion_student_eva-l_{name}_b2d.py', options)


@pytest.mark.parametrize('name', NEURONS)
def test_real_configs_are_ready_to_train(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = verify(tiny_config(tmp_path, name, monkeypatch))
    assert [one.message for one in found if one.level == 'error'] == []
    notes = [one.message for one in found]
    assert any('100.0 % of the parameters loaded' in note for note in notes)
    assert any(note.startswith('ran on a training batch') for note in notes)


def test_weights_and_schedule_are_those_of_the_page() -> None:
    eight, half = (launch.read_config(CONFIGS / f'orion_student_eva-l_{name}_b2d.py') for name in ('8heads', 'half'))
    for config in (eight, half):
        weights = {name: pair.weight for name, pair in config.model.pairs.items()}
        assert sum(value for name, value in weights.items() if name.startswith('features')) == 0.5
        assert weights['attention'] == 0.3
        assert config.optim_wrapper.constructor == 'kdplugin.TrainedParameters'
        assert (config.optim_wrapper.optimizer.lr, config.optim_wrapper.clip_grad.max_norm) == (2e-4, 10)
    assert eight.model.alpha == 0.7
    assert [(phase.start, phase.get('stop')) for phase in half.model.alpha] == [(0.8, None), (0.7, 0.6)]
    digits = launch.read_config(CONFIGS / 'student_kd_eva-tiny_digits.py').model
    assert digits.alpha == 0.7
    assert [pair.weight for pair in digits.pairs.values()] == [0.25, 0.25, 0.3, 0.2]
    assert digits.pairs.outputs.loss.temperature == 3.0
