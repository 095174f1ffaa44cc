"""The VOC configs: they parse on top of mmseg's own files, and the pairs are the documented formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import nn

from kdplugin.config_files import parse  # imports kdplugin.registry, which lets `mmseg::` be found on both stacks

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'configs/segmentation'
BASELINE = 'mbv3s-aspp_40k_voc12-512x512.py'
KD = 'kd_fcn-r50_mbv3s-aspp_40k_voc12-512x512.py'
TEACHER = 'fcn-r50_torchvision_voc12.py'


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / name)


def build(config: Config) -> nn.Module:
    init_default_scope('mmseg')
    return MMSEG_MODELS.build(config.model)


def plain(value: object) -> object:
    """Turn nested config dicts and tuples into something that compares by content."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize('name', [BASELINE, KD, TEACHER])
def test_recipe_is_mmsegs_own(name: str) -> None:
    config = load(name)
    assert config.train_dataloader.dataset.type == 'PascalVOCDataset'
    assert config.train_cfg.max_iters == 40_000
    assert config.default_scope == 'mmseg'
    assert tuple(config.data_preprocessor['size']) == (512, 512)


def test_kd_changes_nothing_but_the_model() -> None:
    baseline, distilled = load(BASELINE).to_dict(), load(KD).to_dict()
    student = distilled.pop('model')['student']
    assert plain(student) == plain(baseline.pop('model'))
    distilled.pop('feature_loss')
    assert plain(distilled) == plain(baseline)


def test_weights_are_alpha_beta_gamma_of_the_formula() -> None:
    model = load(KD).model
    assert model.type == 'kdplugin.Distiller'
    assert model.task_weight == 1.0
    assert {name: pair.weight for name, pair in model.pairs.items()} == {
        'logits': 0.5,
        'low': 0.1,
        'mid': 0.1,
        'high': 0.1,
    }
    assert sum(model.pairs[name].weight for name in ('low', 'mid', 'high')) == pytest.approx(0.3)
    assert dict(model.pairs.logits.loss) == {
        'type': 'kdplugin.KLDivergenceLoss',
        'temperature': 4.0,
        'ignore_index': 255,
    }


def test_every_tap_names_a_module() -> None:
    model = load(KD).model
    student, teacher = build(load(BASELINE)), build(parse(model.teacher.cfg))
    for pair in model.pairs.values():
        assert student.get_submodule(pair.get('student_tap', pair.get('tap')))
        assert teacher.get_submodule(pair.get('teacher_tap', pair.get('tap')))


def test_baseline_takes_a_training_step_from_raw_images() -> None:
    torch.manual_seed(0)
    config = load(BASELINE)
    config.model.data_preprocessor.size = (64, 64)
    model = build(config)
    data = {
        'inputs': [torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8) for _ in range(2)],
        'data_samples': [
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.randint(0, 21, (1, 64, 48))),
                metainfo={'img_shape': (64, 48)},
            )
            for _ in range(2)
        ],
    }
    batch = model.data_preprocessor(data, training=True)
    assert batch['inputs'].shape == (2, 3, 64, 64)
    assert (batch['data_samples'][0].gt_sem_seg.data[..., 48:] == 255).all()
    losses = model(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.item() == pytest.approx(3.04, abs=0.5)  # log 21: nothing is known about the classes yet
    total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
