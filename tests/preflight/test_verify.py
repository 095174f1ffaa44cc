from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from engine_fixtures import COSINE, build, detector, distilled, feature_and_logit_pairs, segmentor
from engine_runs import run_config
from mmengine.config import Config

from kdplugin.preflight.findings import Finding
from kdplugin.preflight.verify import verify


def of_level(findings: list[Finding], level: str) -> list[tuple[str, str]]:
    return [(finding.where, finding.message) for finding in findings if finding.level == level]


def kd_config(shared: Path, tmp_path: Path, **changes: Any) -> Config:
    model = distilled(shared, feature_and_logit_pairs(), student=segmentor(), **changes)
    config = run_config(shared, tmp_path / 'work', model, validate_every=2)
    config.param_scheduler[0].end = 4
    return config


def test_a_good_config_has_no_error_and_tells_what_the_loss_is_made_of(shared: Path, tmp_path: Path) -> None:
    findings = verify(kd_config(shared, tmp_path))
    assert of_level(findings, 'error') == []
    assert of_level(findings, 'warning') == []
    step = [message for where, message in of_level(findings, 'note') if where == 'training step']
    assert 'on a training batch' in step[0]
    assert [line.split(' ')[0] for line in step[1:]] == ['decode.loss_ce', 'loss_kd_feature', 'loss_kd_logits']
    assert not any('not checked' in message for _, message in of_level(findings, 'note'))


def test_the_config_is_left_as_it_was(shared: Path, tmp_path: Path) -> None:
    config = kd_config(shared, tmp_path)
    before = copy.deepcopy(config.to_dict())
    verify(config)
    assert config.to_dict() == before


def test_a_plain_config_is_checked_as_a_student(shared: Path, tmp_path: Path) -> None:
    findings = verify(run_config(shared, tmp_path, segmentor(), validate_every=2))
    assert of_level(findings, 'error') == []
    assert ('model', 'no kdplugin.Distiller: this trains without a teacher.') in of_level(findings, 'note')
    assert ('training step', 'ran on a training batch') in [
        (where, message.split(':')[0]) for where, message in of_level(findings, 'note')
    ]


def test_all_problems_are_told_at_once(shared: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    config = kd_config(shared, tmp_path, frozen=['backbon'], task_wait=2)
    config.work_dir = str(tmp_path / 'file' / 'work')
    config.model.teacher.checkpoint = 'gone.pth'
    config.model.pairs.logits.tap = 'decode_head.conv_sge'
    config.model.pairs.feature.loss.type = 'kdplugin.CosinLoss'
    config.model.pairs.late = dict(tap='backbone.layer4', loss=COSINE, weight='much')
    config.train_dataloader.dataset.data_prefix.img_path = 'nowhere'
    config.val_dataloader.dataset.data_root = str(tmp_path / 'nothing')
    findings = verify(config)
    errors = of_level(findings, 'error')
    assert [where for where, _ in errors] == [
        'work_dir',
        'train_dataloader.dataset.data_prefix.img_path',
        'val_dataloader.dataset.data_root',
        'model',
        'model.teacher.checkpoint',
        'model.pairs.feature',
        'model.pairs.late',
        'model.pairs.logits.tap',
        'model.pairs.logits.tap',
        'model.frozen',
    ]
    for (_, message), part in zip(
        errors,
        (
            'Expected a writable work dir but',
            'Expected img_path',
            'Expected data_root',
            "in kdplugin.Distiller but got 'task_wait'. Did you mean 'task_weight'?",
            'Expected a checkpoint file but gone.pth does not exist',
            "got 'kdplugin.CosinLoss'. Did you mean 'kdplugin.CosineLoss'",
            "Expected a finite weight >= 0 in pair 'late' but got 'much'",
            "of the student but got 'decode_head.conv_sge'. Did you mean 'decode_head.conv_seg'",
            "of the teacher but got 'decode_head.conv_sge'. Did you mean 'decode_head.conv_seg'",
            "'backbon' matches nothing",
        ),
        strict=True,
    ):
        assert part in message
    notes = of_level(findings, 'note')
    assert ('training step', 'not checked: real training images. The step below sees random ones.') in notes
    assert any('ran on a batch of random images' in message for _, message in notes)


def test_other_classes_stop_the_logits_pair_alone(shared: Path, tmp_path: Path) -> None:
    teacher = segmentor(16, classes=5)
    torch.save({'state_dict': build(teacher).state_dict()}, tmp_path / 'teacher.pth')
    config = kd_config(shared, tmp_path)
    config.model.teacher = dict(model=teacher, checkpoint=str(tmp_path / 'teacher.pth'))
    findings = verify(config)
    assert [where for where, _ in of_level(findings, 'error')] == ['model.pairs.logits']
    assert 'has 11 channels and' in of_level(findings, 'error')[0][1]
    assert [(where, 'but got 5' in message) for where, message in of_level(findings, 'warning')] == [
        ('model.teacher.decode_head', True)
    ]
    assert any(message.startswith('loss_kd_feature') for _, message in of_level(findings, 'note'))


def test_pairs_of_weight_zero_are_said_to_rest(shared: Path, tmp_path: Path) -> None:
    config = kd_config(shared, tmp_path)
    config.model.pairs.logits.weight = 0
    notes = of_level(verify(config), 'note')
    assert ('model.pairs.logits', 'has weight 0: it is not run.') in notes
    assert not any(message.startswith('loss_kd_logits') for _, message in notes)


def test_a_broken_student_does_not_hide_what_is_wrong_with_the_teacher(shared: Path, tmp_path: Path) -> None:
    config = kd_config(shared, tmp_path)
    config.model.student.decode_head.type = 'FCNHed'
    config.model.pairs.logits.update(tap=None, student_tap='decode_head.conv_seg', teacher_tap='decode_hed.conv_seg')
    findings = verify(config)
    assert [where for where, _ in of_level(findings, 'error')] == [
        'model.student.decode_head.type',
        'model.student',
        'model.pairs.logits.teacher_tap',
    ]
    assert ('training step', 'not checked: there is no student to train.') in of_level(findings, 'note')
    assert ('model.pairs.feature', 'not checked: its student tap, because there is no student to look at.') in of_level(
        findings, 'note'
    )


def test_a_config_without_a_model_is_an_error(tmp_path: Path) -> None:
    findings = verify(Config(dict(work_dir=str(tmp_path))))
    assert [where for where, _ in of_level(findings, 'error')] == ['train_cfg', 'model']


def test_a_detector_is_checked(shared: Path, tmp_path: Path) -> None:
    model = dict(
        type='kdplugin.Distiller',
        student=detector(),
        teacher=dict(model=detector(16, 24), checkpoint=str(shared / 'detector.pth')),
        pairs=dict(neck=dict(tap='neck', loss=COSINE), cls=dict(tap='bbox_head.gfl_cls', loss=COSINE, weight=0.5)),
    )
    findings = verify(Config(dict(default_scope='mmdet', work_dir=str(tmp_path / 'work'), model=model)))
    assert [where for where, _ in of_level(findings, 'error')] == ['train_cfg']  # there is no training in it
    notes = [message.split(' ')[0] for where, message in of_level(findings, 'note') if where == 'training step']
    assert {'loss_cls', 'loss_bbox', 'loss_dfl', 'loss_kd_neck', 'loss_kd_cls'} <= set(notes)


def test_every_pair_is_looked_at_with_the_largest_weight_it_ever_has(shared: Path, tmp_path: Path) -> None:
    """Also one that begins at 0, one that has to be calibrated, and those of several teachers."""
    config = kd_config(shared, tmp_path, alpha=dict(kind='linear', start=0.0, stop=0.5))
    big = config.model.pop('teacher')
    config.model.teachers = dict(big=big, other=dict(big, weight=0.5))
    config.model.pairs.feature.update(teacher='other', weight=dict(kind='cosine', start=0, stop=4), warmup=3)
    config.model.pairs.logits.update(teacher='big', target_ratio=0.25, calibration_iters=2)
    del config.model.pairs.logits.weight
    findings = verify(config)
    assert of_level(findings, 'error') == []
    notes = dict(message.split(' ', 1) for where, message in of_level(findings, 'note') if where == 'training step')
    assert ' = 1 x ' in notes['loss_kd_feature']
    assert float(notes['loss_kd_logits'].split()[0]) > 0
    assert {'model.teachers.big', 'model.teachers.other'} <= {where for where, _ in of_level(findings, 'note')}


def test_mistakes_between_pairs_and_teachers_are_told(shared: Path, tmp_path: Path) -> None:
    config = kd_config(shared, tmp_path, alpha=2)
    config.model.teachers = dict(big=config.model.pop('teacher'))
    config.model.pairs.logits.teacher = 'bgi'
    config.model.pairs.feature.update(teacher='big', stop_after=-1)
    text = '\n'.join(message for _, message in of_level(verify(config), 'error'))
    assert "teacher to be one of 'big' in pair 'logits' but got 'bgi'. Did you mean 'big'" in text
    assert 'a finite weight from 0 to 1 in alpha but got 2' in text
    assert "a whole number >= 0 as stop_after of pair 'feature' but got -1" in text
