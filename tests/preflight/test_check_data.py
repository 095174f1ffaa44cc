from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import CLASSES, build, detector, segmentor
from engine_runs import run_config
from mmengine.config import Config
from mmengine.registry import init_default_scope

import kdplugin.registry  # noqa: F401 - makes types with the prefix 'kdplugin.' known
from kdplugin.errors import ConfigError
from kdplugin.preflight.data import (
    check_classes,
    check_dataset_files,
    dataset_classes,
    head_classes,
    near_files,
    plain_datasets,
    require_matching_classes,
)
from kdplugin.preflight.findings import Findings


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def messages(found: Findings, level: str = 'error') -> list[str]:
    return [finding.message for finding in found if finding.level == level]


def loaders(**dataset: Any) -> Config:
    settings = dict(type='BaseSegDataset', metainfo=dict(classes=('a', 'b')))
    return Config(dict(train_dataloader=dict(dataset={**settings, **dataset})))


def test_wrappers_are_opened() -> None:
    one, two = dict(type='A'), dict(type='B')
    wrapped = dict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[one, dict(type='C', dataset=two)])
    )
    assert list(plain_datasets(wrapped)) == [
        ('dataset.dataset.datasets.0', one),
        ('dataset.dataset.datasets.1.dataset', two),
    ]
    assert list(plain_datasets(one)) == [('dataset', one)]


def test_existing_files_are_no_finding(shared: Path, tmp_path: Path) -> None:
    found = Findings()
    assert check_dataset_files(found, run_config(shared, tmp_path, segmentor(), validate_every=2))
    assert found == []


def test_every_missing_file_is_named_once(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    found = Findings()
    prefix = dict(img_path='images', seg_map_path='labels')
    assert not check_dataset_files(found, loaders(data_root=str(tmp_path), data_prefix=prefix, ann_file='train.txt'))
    assert messages(found) == [
        f'Expected ann_file {tmp_path}/train.txt but it does not exist. Put the data there or correct ann_file.',
        f'Expected seg_map_path {tmp_path}/labels but it does not exist. Put the data there or correct seg_map_path.',
    ]
    assert messages(found, 'note') == ['not checked: the config has none.']


def test_a_missing_root_is_told_alone(tmp_path: Path) -> None:
    found = Findings()
    check_dataset_files(found, loaders(data_root=str(tmp_path / 'no'), data_prefix=dict(img_path='images')))
    assert len(messages(found)) == 1
    assert 'to be a folder but it does not exist' in messages(found)[0]


def test_a_prefix_that_is_no_text_is_an_error_and_not_a_crash() -> None:
    found = Findings()
    assert not check_dataset_files(found, loaders(data_prefix=dict(img_path=['a', 'b'])))
    assert messages(found)[0].startswith('Expected paths but got ')


def test_remote_data_is_not_judged() -> None:
    found = Findings()
    assert check_dataset_files(found, loaders(data_root='s3://bucket/data'))
    assert 'not checked: the files of BaseSegDataset' in messages(found, 'note')[0]


def test_the_nearest_file_is_suggested(tmp_path: Path) -> None:
    (tmp_path / 'train' / 'images').mkdir(parents=True)
    assert near_files(str(tmp_path / 'train' / 'image')) == f" Did you mean '{tmp_path}/train/images'?"
    assert near_files(str(tmp_path / 'trian' / 'images')) == f" Did you mean '{tmp_path}/train'?"
    assert near_files(str(tmp_path / 'other')) == ''
    found = Findings()
    check_dataset_files(found, loaders(data_root=str(tmp_path), ann_file=str(tmp_path / 'a.txt')[1:]))
    twice = Findings()
    check_dataset_files(twice, loaders(data_root='tests', ann_file='tests/a.txt'))
    assert 'It names data_root once more.' in messages(twice)[0]


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (dict(type='mmdet.CocoDataset'), 80),
        (dict(type='PascalVOCDataset'), 21),
        (dict(type='PascalVOCDataset', metainfo=dict(classes=('cat',))), 1),
    ],
)
def test_classes_come_from_the_type_and_the_config_without_reading_data(dataset: Any, expected: int) -> None:
    classes = dataset_classes(dataset)
    assert classes is not None
    assert len(classes) == expected


def test_heads_of_segmentors_and_detectors_are_found() -> None:
    assert head_classes(build(segmentor(classes=5, auxiliary=True), initialise=False)) == {
        'decode_head': 5,
        'auxiliary_head': 5,
    }
    assert head_classes(build(detector(classes=7), initialise=False)) == {'bbox_head': 7}


def test_another_number_of_classes_is_an_error_for_the_student_and_a_warning_for_the_teacher(
    shared: Path, tmp_path: Path
) -> None:
    config = run_config(shared, tmp_path, segmentor(), validate_every=2)
    student = build(segmentor(classes=9))
    found = Findings()
    heads = {'model.student': head_classes(student), 'model.teacher': dict(decode_head=21)}
    check_classes(found, config, heads)
    assert [one.where for one in found] == ['model.student.decode_head', 'model.teacher.decode_head']
    assert messages(found) == [
        f'Expected decode_head to predict the {CLASSES} classes of train_dataloader and val_dataloader but got 9. '
        'Set num_classes of the head, or metainfo of the dataset.'
    ]
    assert [message.split('. ')[0] for message in messages(found, 'warning')] == [
        f'Expected decode_head to predict the {CLASSES} classes of train_dataloader and val_dataloader but got 21'
    ]
    with pytest.raises(ConfigError, match=rf'predict the {CLASSES} classes of .* but got 9'):
        require_matching_classes(config, student)
    require_matching_classes(config, build(segmentor()))


def test_a_text_of_classes_is_not_counted_by_letters() -> None:
    found = Findings()
    check_classes(found, loaders(metainfo=dict(classes='car')), {'model': dict(decode_head=3)})
    assert messages(found) == ["Expected a tuple of classes but got the text 'car'. Write ('car',)."]


def test_a_dataset_without_classes_is_said_to_be_unchecked() -> None:
    found = Findings()
    check_classes(found, loaders(metainfo=None), {'model': dict(decode_head=3)})
    assert messages(found, 'note') == ['not checked: the number of classes, which BaseSegDataset does not name.']


def test_forms_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    for changes, key, part in (
        (dict(data_prefix='train/'), 'data_prefix', "Write data_prefix=dict(img='train/')"),
        (dict(type='mmdet.CocoDataset', data_root=str(tmp_path), ann_file='annotations'), 'ann_file', 'is a folder'),
        (dict(filter_cfg=dict(filter_empty=True)), 'filter_cfg.filter_empty', "Did you mean 'filter_empty_gt'"),
    ):
        found = Findings()
        check_dataset_files(found, loaders(**changes))
        ((where, message),) = [(one.where, one.message) for one in found.errors]
        assert where == f'train_dataloader.dataset.{key}'
        assert part in message
    found = Findings()
    check_dataset_files(found, loaders(filter_cfg=dict(filter_empty_gt=True, min_size=32, my_own=1)))
    assert found.errors == []
    assert near_files(str(tmp_path)) == ' It is a folder.'


def panoptic(heads: dict[str, int]) -> Findings:
    init_default_scope('mmdet')
    found, loader = Findings(), dict(dataset=dict(type='CocoPanopticDataset', ann_file='x.json'))
    check_classes(found, Config(dict(train_dataloader=loader)), {'model': heads})
    return found


def test_heads_of_panoptic_data_predict_all_things_or_stuff() -> None:
    assert panoptic({'bbox_head': 80, 'stuff_head': 53, 'mask_head': 133}) == []
    assert 'predict the 133 classes of train_dataloader but got 79' in panoptic({'bbox_head': 79})[0].message


def test_classes_of_videos_are_not_compared() -> None:
    init_default_scope('mmdet')
    assert dataset_classes(dict(type='MOTChallengeDataset', ann_file='x.json')) is None
    found = Findings()
    loader = dict(dataset=dict(type='MOTChallengeDataset', ann_file='x.json'))
    check_classes(found, Config(dict(train_dataloader=loader)), {'model': {'bbox_head': 1}})
    assert [one.level for one in found] == ['note']


def test_a_missing_file_of_proposals_is_told_like_one_of_annotations(tmp_path: Path) -> None:
    (tmp_path / 'there.pkl').touch()
    for name, number in (('there.pkl', 0), ('gone.pkl', 1)):
        dataset = dict(type='CocoDataset', data_root=str(tmp_path), proposal_file=name)
        found = Findings()
        check_dataset_files(found, Config(dict(train_dataloader=dict(dataset=dataset))))
        assert [one.where for one in found.errors] == ['train_dataloader.dataset.proposal_file'] * number


@pytest.mark.parametrize(
    ('steps', 'told'),
    [([dict(type='LoadAnnotations', with_mask=True)], False), ([dict(type='LoadAnnotations', with_seg=True)], True)],
)
def test_a_folder_of_maps_is_asked_for_where_a_step_opens_it(tmp_path: Path, steps: list[dict], told: bool) -> None:
    (tmp_path / 'images').mkdir()
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path), data_prefix=dict(img='images', seg='panoptic'), pipeline=steps
    )
    found = Findings()
    check_dataset_files(found, Config(dict(train_dataloader=dict(dataset=dataset))))
    assert [one.where for one in found.errors] == ['train_dataloader.dataset.data_prefix.seg'] * told
