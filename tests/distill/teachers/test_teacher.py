"""Contract 1: the teacher is a guest, loaded strictly; contract 7 for its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, build, segmentation_batch, segmentor
from mmengine.config import Config

from kdplugin.distill.teachers.teacher import build_teacher, teacher_mistakes
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.reading.io import hash_file, hash_tensors

WIDE = segmentor(16, dropout=0.5)


def weights_of(shared: Path) -> dict[str, torch.Tensor]:
    return torch.load(shared / 'segmentor.pth', weights_only=True)['state_dict']


def saved(tmp_path: Path, weights: Any) -> str:
    torch.save({'state_dict': weights}, tmp_path / 'teacher.pth')
    return str(tmp_path / 'teacher.pth')


def test_teacher_holds_exactly_the_file_frozen_and_in_eval(shared: Path) -> None:
    teacher = build_teacher(dict(model=WIDE, checkpoint=str(shared / 'segmentor.pth')))
    assert hash_tensors(teacher.module.state_dict()) == hash_tensors(weights_of(shared))
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert teacher.sha256 == hash_file(shared / 'segmentor.pth')
    assert teacher.tensors == len(weights_of(shared))
    assert teacher.parameters == sum(value.numel() for value in teacher.module.parameters())


def test_cfg_names_a_config_file(shared: Path, tmp_path: Path) -> None:
    """The preprocessor and the default scope at the top of the file belong to the model."""
    model = {key: value for key, value in WIDE.items() if key not in ('_scope_', 'data_preprocessor')}
    whole = dict(default_scope='mmseg', model=model, data_preprocessor=WIDE['data_preprocessor'])
    Config(whole).dump(tmp_path / 'teacher.py')
    teacher = build_teacher(dict(cfg=str(tmp_path / 'teacher.py'), checkpoint=str(shared / 'segmentor.pth')))
    assert type(teacher.module).__module__.startswith('mmseg.')
    assert teacher.module.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.7, 116.3, 103.5])


@pytest.mark.parametrize('by_file', [True, False])
def test_a_distilled_student_can_teach(shared: Path, tmp_path: Path, by_file: bool) -> None:
    """A config whose model is a Distiller stands for its student; the student's own teacher is not needed."""
    gone = dict(model=WIDE, checkpoint=str(tmp_path / 'gone.pth'))
    model = dict(type='kdplugin.Distiller', student=WIDE, teacher=gone, pairs=dict(a=dict(tap='backbone', loss=COSINE)))
    Config(dict(default_scope='mmseg', model=model)).dump(tmp_path / 'kd.py')
    source = dict(cfg=str(tmp_path / 'kd.py')) if by_file else dict(model=model)
    teacher = build_teacher(dict(source, checkpoint=str(shared / 'segmentor.pth')))
    assert hash_tensors(teacher.module.state_dict()) == hash_tensors(weights_of(shared))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(model=WIDE, checkpoint='t.pth', chekpoint='x'),
         r"keys .* in teacher but got 'chekpoint'. Did you mean 'checkpoint'"),
        (dict(checkpoint='t.pth'), r"either cfg or model in teacher but got \['checkpoint'\]"),
        (dict(cfg='a.py', model=WIDE, checkpoint='t.pth'),
         r"either cfg or model in teacher but got \['cfg', 'checkpoint', 'model'\]"),
        (dict(model=WIDE), 'Expected a checkpoint in teacher but got none. A random teacher teaches nothing'),
        (dict(model=WIDE, checkpoint=None), 'Expected a checkpoint in teacher but got none'),
        (dict(model=WIDE, checkpoint=''), 'Expected a checkpoint in teacher but got none'),
        (dict(cfg='no/such.py', checkpoint='t.pth'), 'a teacher config file but no/such.py does not exist'),
    ],
)  # fmt: skip
def test_config_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_teacher(config)


def test_missing_file_is_an_error(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'Expected a checkpoint file but .*gone\.pth does not exist'):
        build_teacher(dict(model=WIDE, checkpoint=str(tmp_path / 'gone.pth')))


def test_every_mismatch_is_reported(shared: Path, tmp_path: Path) -> None:
    weights = weights_of(shared)
    del weights['backbone.conv1.weight']
    weights['neck.weight'] = torch.zeros(1)
    weights['backbone.bn1.bias'] = torch.zeros(3)
    total = len(weights_of(shared))
    message = (
        rf'to fit the model in all {total} tensors but {total - 2} fit: '
        r'1 missing \(such as backbone\.conv1\.weight\); 1 left over \(such as neck\.weight\); '
        r'1 of another shape \(such as backbone\.bn1\.bias \(3,\) instead of \(16,\)\)'
    )
    with pytest.raises(CheckpointError, match=message):
        build_teacher(dict(model=WIDE, checkpoint=saved(tmp_path, weights)))


def test_other_class_count_is_an_error(shared: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r'decode_head\.conv_seg\.weight \(11, 8, 1, 1\) instead of \(21, 8, 1, 1\)'
    ):
        build_teacher(dict(model=segmentor(16, classes=21), checkpoint=str(shared / 'segmentor.pth')))


def test_other_model_is_an_error(shared: Path) -> None:
    with pytest.raises(CheckpointError, match=r'missing .*left over .*Use the checkpoint that was trained with this'):
        build_teacher(dict(model=WIDE, checkpoint=str(shared / 'detector.pth')))


def test_old_files_may_lack_batch_counts_only(shared: Path, tmp_path: Path) -> None:
    weights = {name: value for name, value in weights_of(shared).items() if 'num_batches_tracked' not in name}
    teacher = build_teacher(dict(model=WIDE, checkpoint=saved(tmp_path, weights)))
    own = teacher.module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items())


def test_a_parallel_wrapper_prefix_is_taken_off(shared: Path, tmp_path: Path) -> None:
    weights = {f'module.{name}': value for name, value in weights_of(shared).items()}
    teacher = build_teacher(dict(model=WIDE, checkpoint=saved(tmp_path, weights)))
    assert hash_tensors(teacher.module.state_dict()) == hash_tensors(weights_of(shared))


def test_a_bomb_goes_off_only_for_those_who_trust_it(shared: Path, tmp_path: Path, bomb: Any) -> None:
    torch.save({'state_dict': weights_of(shared), 'meta': bomb}, tmp_path / 'bomb.pth')
    config = dict(model=WIDE, checkpoint=str(tmp_path / 'bomb.pth'))
    with pytest.raises(CheckpointError, match=r'Nothing was executed.*teacher=dict\(\.\.\., trust_checkpoint=True\)'):
        build_teacher(config)
    assert not bomb.marker.exists()
    build_teacher(dict(config, trust_checkpoint=True))
    assert bomb.marker.exists()


@pytest.mark.parametrize('style', ['keywords', 'positions'])
def test_outputs_are_those_of_the_plain_model_without_gradient(shared: Path, style: str) -> None:
    student_config = dict(
        type='kdplugin.Distiller', student=segmentor(), pairs=dict(a=dict(tap='decode_head.conv_seg', loss=COSINE)),
        teacher=dict(model=WIDE, checkpoint=str(shared / 'segmentor.pth'), fuse=False, channels_last=False),
    )  # fmt: skip
    teacher = build(student_config)._distillation.teacher
    plain = build(WIDE)
    plain.load_state_dict(weights_of(shared))
    batch = segmentation_batch()
    args, kwargs = ((), dict(batch, mode='loss')) if style == 'keywords' else ((*batch.values(), 'loss'), {})
    (output,) = teacher.outputs(['decode_head.conv_seg'], args, kwargs)['decode_head.conv_seg']
    torch.testing.assert_close(output, plain.eval()(**batch, mode='tensor'), rtol=0, atol=0)
    assert output.grad_fn is None
    assert not output.requires_grad


def test_an_unprobed_teacher_says_how_to_get_a_probed_one(shared: Path) -> None:
    teacher = build_teacher(dict(model=WIDE, checkpoint=str(shared / 'segmentor.pth')))
    with pytest.raises(ConfigError, match=r'a probed teacher but got none\. Build it through kdplugin\.Distiller'):
        teacher.outputs(['backbone'], (torch.zeros(1, 3, 32, 32),), {})


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (WIDE, "but got a model config, 'EncoderDecoder'. Write teacher=dict(model=..., checkpoint=...) around it."),
        (dict(cfg=WIDE, checkpoint='a.pth'), 'the path of a config file but got a dict. Write model='),
    ],
)
def test_a_model_config_in_the_wrong_place_is_one_mistake(config: dict[str, Any], message: str) -> None:
    (mistake,) = teacher_mistakes(config)
    assert message in str(mistake)
