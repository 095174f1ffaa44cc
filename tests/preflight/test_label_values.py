from __future__ import annotations

from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import says

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.label_values import check_ignored_class, check_zero_label


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def data(train: Any, val: Any, classes: tuple[str, ...] = ('road', 'car')) -> dict[str, Any]:
    return {
        f'{name}_dataloader': dict(
            dataset=dict(type='BaseSegDataset', metainfo=dict(classes=classes))
            | ({} if value is None else dict(reduce_zero_label=value))
        )
        for name, value in (('train', train), ('val', val))
    }


@pytest.mark.parametrize(('train', 'val'), [(True, True), (False, False), (None, None), (None, True)])
def test_labels_that_are_read_alike_are_right(train: Any, val: Any) -> None:
    assert says(check_zero_label, data(train, val)) == []


def test_labels_are_taken_off_in_both_or_in_none() -> None:
    ((level, where, text),) = says(check_zero_label, data(True, False))
    assert (level, where) == ('error', 'val_dataloader.dataset.reduce_zero_label')
    assert 'but got True and False. Every class would be measured by the labels of its neighbour' in text


def test_a_class_that_has_a_name_keeps_its_label() -> None:
    ((level, where, text),) = says(check_zero_label, data(True, True, ('background', 'car')))
    assert (level, where) == ('error', 'train_dataloader.dataset.reduce_zero_label')
    assert "Expected 'background' to keep its label 0" in text
    assert says(check_zero_label, data(False, False, ('background', 'car'))) == []


def test_no_class_is_ignored() -> None:
    found = Findings()
    for index in (255, 11, -100, 10, 0):
        head = dict(decode_head=dict(num_classes=11, ignore_index=index))
        check_ignored_class(found, head, 'model.student')
    assert [(one.level, one.where) for one in found] == [('warning', 'model.student.decode_head.ignore_index')] * 2
    assert 'outside the 11 classes but got 10, which would never be learnt. Write 255, unless' in found[0].message
