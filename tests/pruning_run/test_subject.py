"""A trained model of a config: its weights, its batches, its backbone at a pruned size."""

from __future__ import annotations

from pathlib import Path

import orion_models as orion
import pytest
import torch
from mmengine.config import Config
from pruning_configs import HEAD_COUNT, NEURON_COUNT, pruning_teacher

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.pruning.gates import masked
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.scorers.taylor import taylor_scores
from kdplugin.pruning_run.subject import (
    Subject,
    calibration_batches,
    calibration_of,
    fragment,
    open_subject,
    pruned_backbone,
    teacher_config,
    total_loss,
)
from kdplugin.weights.reading.io import read_checkpoint

PLAN = PruningPlan(((0, 2), (1, 3)), (tuple(range(40)), tuple(range(45, 85))), HEAD_COUNT, NEURON_COUNT, 8, 'backbone.')


@pytest.fixture(scope='module')
def subject(shared: Path) -> Subject:
    return open_subject(*pruning_teacher(shared))


def test_the_model_has_the_weights_of_the_file(subject: Subject, shared: Path) -> None:
    state = read_checkpoint(pruning_teacher(shared)[1])['state_dict']
    for name, value in subject.model.state_dict().items():
        assert 'freqs' in name or torch.equal(value, state[name]), name
    assert (subject.prefix, subject.inner, subject.left) == ('backbone.', 'backbone.', ())
    assert not subject.model.training
    assert subject.backbone is subject.model.backbone
    assert subject.settings['embed_dim'] == 32
    assert not {'type', 'num_heads'} & subject.settings.keys()


def test_a_file_in_orions_layout(shared: Path, tmp_path: Path) -> None:
    config, _ = pruning_teacher(shared)
    found = open_subject(config, orion.save_orion(tmp_path))
    assert (found.prefix, found.inner) == ('img_backbone.', 'backbone.')
    assert set(found.left) == {'map_head.query.weight', 'lm_head.lora_A', 'query_pos'}


def test_weights_that_are_missing_or_do_not_fit(shared: Path, tmp_path: Path) -> None:
    config, checkpoint = pruning_teacher(shared)
    state = read_checkpoint(checkpoint)['state_dict']
    short = {name: value for name, value in state.items() if not name.startswith('neck.')}
    torch.save({'state_dict': short}, tmp_path / 'short.pth')
    with pytest.raises(CheckpointError, match=r"are missing, such as \['neck"):
        open_subject(config, tmp_path / 'short.pth')
    torch.save({'state_dict': {**state, 'backbone.pos_embed': torch.zeros(1, 3, 32)}}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'that fit .* but got size mismatch for backbone.pos_embed'):
        open_subject(config, tmp_path / 'other.pth')


def test_batches_follow_the_seed(subject: Subject) -> None:
    first, same, other = (calibration_batches(subject, 2, 2, seed) for seed in (0, 0, 1))
    assert [tuple(batch['inputs'].shape) for batch in first] == [(2, 3, 64, 64)] * 2
    assert torch.equal(first[1]['inputs'], same[1]['inputs'])
    assert not torch.equal(first[0]['inputs'], other[0]['inputs'])


def test_the_objective_is_the_loss_of_the_detector(subject: Subject) -> None:
    calibration = calibration_of(subject, 1, progress=False)
    batch = calibration.batches[0]
    losses = subject.model(**batch, mode='loss')
    expected = sum(sum(value) if isinstance(value, list) else value for value in losses.values())
    torch.testing.assert_close(total_loss(subject.model, batch), expected.sum())
    assert (taylor_scores(calibration, 'heads') > 0).all()


def test_the_pruned_backbone_is_the_masked_one(subject: Subject) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found,) = pruned_backbone(subject, PLAN)(images)
        with masked(subject.model, PLAN):
            (expected,) = subject.backbone(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_teacher_of_a_distillation_is_taken(shared: Path) -> None:
    config = Config(dict(model=dict(type='kdplugin.Distiller', student=dict(), teacher=dict(model=dict(type='A')))))
    assert teacher_config(config).model.type == 'A'
    config.model.teacher = dict(cfg=pruning_teacher(shared)[0], checkpoint='x.pth')
    assert teacher_config(config).model.type == 'GFL'
    assert config.model.type == 'kdplugin.Distiller'


def test_without_training_data(subject: Subject) -> None:
    bare = Subject(Config(dict(model=subject.config.model)), *list(vars(subject).values())[1:])
    with pytest.raises(ConfigError, match='Expected a train_dataloader to calibrate on'):
        calibration_batches(bare, 1, 1, 0)


def test_the_fragment_is_a_config(subject: Subject, tmp_path: Path) -> None:
    PLAN.write(tmp_path / 'plan.json')
    (tmp_path / 'pruned_config.py').write_text(fragment(subject, PLAN, tmp_path, 'teacher.pth', ['proj']))
    config = Config.fromfile(tmp_path / 'pruned_config.py')
    assert config.model.type == 'GFL'
    assert config.model.backbone.type == 'kdplugin.EVAViTStudent'
    assert config.model.backbone.plan == str(tmp_path / 'plan.json')
    assert 'num_heads' not in config.model.backbone
    assert config.load_from == str(tmp_path / 'pruned.pth')
