from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import build, detector, segmentation_batch, segmentor, shared
from mmengine.config import Config
from mmrazor_recipes import CWD, mapping, pyramid_recipe, recipe

from kdplugin import launch
from kdplugin.errors import ConfigError
from kdplugin.migration.config_text import plain
from kdplugin.migration.mmrazor_config import Migration, migrate_config

__all__ = ['shared']

LOSS, MAPPING = dict(loss_cwd=CWD), dict(loss_cwd=mapping())


def written(migration: Migration, folder: Path) -> Config:
    (folder / 'new.py').write_text(migration.text())
    return launch.read_config(folder / 'new.py')


def unscoped(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key != '_scope_'}


def notes_of(migration: Migration, kind: str) -> dict[str, str]:
    return {note.where: note.message for note in migration.notes if note.kind == kind}


def test_a_recipe_of_inline_models_stands_alone(tmp_path: Path) -> None:
    top = dict(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=9), val_cfg=dict(type='mmrazor.SingleTeacherDistillValLoop')
    )
    config = written(migrate_config(recipe(LOSS, MAPPING, top=top)), tmp_path)
    assert plain(config.to_dict()) == dict(
        model=dict(
            type='kdplugin.Distiller',
            student=unscoped(segmentor()),
            teacher=dict(model=segmentor(16), checkpoint='teacher.pth'),
            pairs=dict(
                cwd=dict(
                    tap='decode_head.conv_seg',
                    loss=dict(type='kdplugin.CWDLoss', temperature=4.0, ignore_index=None),
                    weight=3.0,
                )
            ),
        ),
        train_dataloader=dict(batch_size=4),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=9),
        val_cfg=dict(type='ValLoop'),
        default_scope='mmseg',
    )


def test_what_is_written_builds_and_trains(tmp_path: Path, shared: Path) -> None:
    migrated = recipe(LOSS, MAPPING, teacher_ckpt=str(shared / 'segmentor.pth'))
    config = written(migrate_config(migrated), tmp_path)
    student = build(config.model)
    assert list(student.state_dict()) == list(build(segmentor()).state_dict())
    losses = student(**segmentation_batch(), mode='loss')
    assert float(losses['loss_kd_cwd']) == pytest.approx(3 * float(losses['kd_cwd_raw']))
    assert float(losses['kd_cwd_raw']) > 0


INHERITING = """_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py']
student = _base_.model
student.bbox_head.init_cfg = dict(type='Pretrained', prefix='bbox_head.', checkpoint='t.pth')
student.neck.num_outs = 4
model = dict(
    _scope_='mmrazor', _delete_=True, type='FpnTeacherDistill', architecture=student,
    teacher=dict(cfg_path='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'), teacher_ckpt='t.pth',
    distiller=dict(
        type='ConfigurableDistiller',
        student_recorders=dict(x=dict(type='ModuleOutputs', source='neck.fpn_convs.1.conv')),
        teacher_recorders=dict(x=dict(type='ModuleOutputs', source='neck.fpn_convs.1.conv')),
        connectors=dict(c=dict(type='MGDConnector', student_channels=256, teacher_channels=256, lambda_mgd=0.65)),
        distill_losses=dict(loss_mgd=dict(type='MGDLoss', alpha_mgd=0.00002)),
        loss_forward_mappings=dict(loss_mgd=dict(
            preds_S=dict(from_student=True, recorder='x', connector='c'),
            preds_T=dict(from_student=False, recorder='x'))),
    ))
optim_wrapper = dict(optimizer=dict(lr=0.123))
custom_hooks = [dict(type='StopDistillHook', stop_epoch=5, _scope_='mmrazor')]
"""


def test_a_recipe_that_inherits_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / 'mgd.py').write_text(INHERITING)
    migration = migrate_config(launch.read_config(tmp_path / 'mgd.py'))
    assert migration.base == 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    assert migration.settings == dict(optim_wrapper=dict(optimizer=dict(lr=0.123)), custom_hooks=[])
    new, old = written(migration, tmp_path), launch.read_config(tmp_path / 'mgd.py')
    assert plain(new.model.student) == plain(old.model.architecture)
    for key in ('optim_wrapper', 'train_cfg', 'param_scheduler', 'train_dataloader', 'default_hooks'):
        assert plain(new[key]) == plain(old[key]), key
    assert new.model.teacher.to_dict() == dict(cfg=migration.base, checkpoint='t.pth')
    assert new.model.pairs.to_dict() == dict(
        mgd=dict(
            type='kdplugin.MGD', tap='neck.fpn_convs.1.conv', mask_ratio=0.65, weight=2e-5 * 256 * 50 * 84,
            stop_after=5, by_epoch=True,
        )
    )  # fmt: skip
    assert 'student' not in new
    assert 'batches of 2 x 800 x 1344' in notes_of(migration, 'converted')['pairs']


def test_the_report_says_what_changes_for_the_teacher() -> None:
    found = [note.message for note in migrate_config(recipe(LOSS, MAPPING)).notes if note.where == 'teacher']
    assert [text.split(';')[0].split(':')[0] for text in found] == [
        'in eval mode throughout',
        'loaded strictly',
        'no part of the model',
        'MMRazor runs its whole loss, with ground truth, also after the distillation has stopped',
    ]


def test_a_teacher_that_is_normalised_otherwise_is_told() -> None:
    teacher = segmentor(16)
    teacher['data_preprocessor']['mean'] = [0.0, 0.0, 0.0]
    kept = [
        note.message for note in migrate_config(recipe(LOSS, MAPPING, teacher=teacher)).notes if note.kind == 'kept'
    ]
    assert any('normalised otherwise: mean' in text for text in kept)


def test_without_the_task_its_weight_is_0() -> None:
    migration = migrate_config(recipe(LOSS, MAPPING, calculate_student_loss=False, teacher_norm_eval=True))
    assert migration.model['task_weight'] == 0.0
    assert 'teacher_norm_eval' in notes_of(migration, 'left out')


def test_preprocessing_of_the_algorithm_is_the_students() -> None:
    preprocessor = dict(segmentor()['data_preprocessor'], size=(64, 64))
    migration = migrate_config(recipe(LOSS, MAPPING, data_preprocessor=preprocessor))
    assert migration.student['data_preprocessor'] == preprocessor  # type: ignore[call-overload]


def test_leftovers_are_notes_and_the_rest_is_migrated() -> None:
    losses = dict(LOSS, loss_f=dict(type='FBKDLoss'))
    config = recipe(losses, dict(MAPPING, loss_f=dict(s_input=mapping()['preds_S'], t_input=mapping()['preds_T'])))
    config.model.init_cfg = dict(type='Pretrained', checkpoint='all.pth')
    config.model.distiller.distill_deliveries = dict(rand=dict(type='FunctionOutputs'))
    migration = migrate_config(config)
    assert list(migration.model['pairs']) == ['cwd']
    assert list(notes_of(migration, 'no counterpart')) == ['deliveries rand', 'loss_f', 'init_cfg']


def test_a_weight_of_an_unknown_size_is_a_leftover() -> None:
    config = pyramid_recipe(1, dict(type='KLDivergence'))
    del config.train_dataloader['dataset']
    assert 'not known' in notes_of(migrate_config(config), 'no counterpart')['pairs']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(type='SelfDistill'), r'type SingleTeacherDistill or FpnTeacherDistill but got SelfDistill\.'),
        (dict(teacher_trainable=True), r'but got teacher_trainable=True, student_trainable=True\.'),
        (dict(student_trainable=False), r'teacher_trainable=False, student_trainable=False\.'),
        (dict(teacher_chkpt='a'), r"in SingleTeacherDistill but got 'teacher_chkpt'\. Did you mean 'teacher_ckpt' or"),
        (dict(teacher=None), r'Expected teacher in SingleTeacherDistill to be a dict but got None\.'),
        (dict(distiller=dict(type='OFDDistiller')), r'Expected a ConfigurableDistiller but got OFDDistiller\.'),
        (dict(teacher_ckpt=None), r'Expected teacher_ckpt but got none\. A random teacher teaches nothing'),
    ],
)
def test_other_algorithms_are_errors(changes: dict[str, Any], message: str) -> None:
    config = recipe(LOSS, MAPPING)
    for key, value in changes.items():
        config.model[key] = value
    with pytest.raises(ConfigError, match=message):
        migrate_config(config)


def test_nothing_left_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError, match=r'a distillation loss that has a counterpart but got none\..*got OFDLoss'):
        migrate_config(recipe(dict(loss_o=dict(type='OFDLoss')), dict(loss_o=mapping())))


def test_a_plain_config_is_no_distillation() -> None:
    with pytest.raises(ConfigError, match=r'type SingleTeacherDistill or FpnTeacherDistill but got GFL\.'):
        migrate_config(Config(dict(model=detector())))
