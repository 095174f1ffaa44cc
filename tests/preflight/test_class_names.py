from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from preflight_says import places, says

from kdplugin.preflight.class_names import (
    check_class_names,
    check_class_weights,
    check_metainfo,
    check_teacher_names,
    classes_of,
    configured_classes,
)
from kdplugin.preflight.findings import Findings


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def data(train: Any, val: Any = None) -> dict[str, Any]:
    def loader(classes: Any) -> dict[str, Any]:
        return dict(dataset=dict(type='BaseSegDataset', metainfo=dict(classes=classes)))

    return dict(train_dataloader=loader(train), **({} if val is None else dict(val_dataloader=loader(val))))


def test_heads_are_found_by_what_they_predict() -> None:
    model = dict(
        decode_head=[dict(num_classes=3), dict(num_classes=4)], auxiliary_head=dict(num_classes=5),
        roi_head=dict(bbox_head=dict(num_classes=6), mask_head=None), rpn_head=dict(num_classes=1),
        semantic_head=dict(num_classes=7),
    )  # fmt: skip
    assert configured_classes(model) == {
        'decode_head.0': 3, 'decode_head.1': 4, 'auxiliary_head': 5, 'roi_head.bbox_head': 6,
    }  # fmt: skip
    assert configured_classes(dict(model, language_model={})) == {}


def test_names_in_training_and_validation_agree() -> None:
    assert says(check_class_names, data(('a', 'b'), ('a', 'b'))) == []
    assert says(check_class_names, data(('a', 'b'))) == []
    for val, part in ((('b', 'a'), 'in another order'), (('a', 'c'), "'b' and 'c'"), (('a',), '2 and 1')):
        (finding,) = says(check_class_names, data(('a', 'b'), val))
        assert part in finding[2]
    assert classes_of(data(('a', 'b')), 'train_dataloader') == ('a', 'b')
    assert classes_of(data('ab'), 'train_dataloader') is None


def test_metainfo_is_written_as_it_is_read() -> None:
    config = data(('a', 'b'))
    meta = config['train_dataloader']['dataset']['metainfo']
    meta.update(CLASSES=('a',))
    assert places(check_metainfo, config) == [('error', 'train_dataloader.dataset.metainfo')]
    del meta['CLASSES']
    meta.update(palette=[[0, 0, 0]])
    assert places(check_metainfo, config) == [('warning', 'train_dataloader.dataset.metainfo')]
    assert 'twice' in says(check_metainfo, data(('a', 'a')))[0][2]


def test_weights_are_as_many_as_classes() -> None:
    found = Findings()
    for number in (2, 3, 4):
        head = dict(num_classes=3, loss_decode=[dict(class_weight=[1.0] * number)])
        check_class_weights(found, dict(decode_head=head), 'model')
    assert [(one.where, 'got 2' in one.message) for one in found] == [
        ('model.decode_head.loss_decode.class_weight', True)
    ]


def test_a_teacher_of_as_many_classes_means_the_same() -> None:
    found = Findings()
    ours = Config(data(('a', 'b')))
    for theirs in (None, data(('a', 'b')), data(('a', 'b', 'c')), data(('b', 'a'))):
        check_teacher_names(found, ours, theirs, 'model.teacher')
    assert [(one.level, one.where) for one in found] == [('warning', 'model.teacher')]
    assert "'b' where the student has 'a'" in found[0].message


def test_heads_that_learn_edges_and_models_that_read_texts_are_no_mistakes() -> None:
    edges = dict(decode_head=dict(num_classes=19), auxiliary_head=[dict(type='STDCHead', num_classes=2)])
    assert configured_classes(edges) == {'decode_head': 19}
    for model, number in (({}, 1), (dict(language_model={}), 0), (dict(student=dict(language_model={})), 0)):
        assert len(says(check_class_names, dict(data(('a', 'b'), ('a',)), model=model))) == number
