from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import COSINE, KL, build, segmentor
from torch import nn

from kdplugin.distill.pairs import Pair, parse_pair
from kdplugin.distill.probe import probe
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.pairs import check_pair, check_tap_paths, check_taps, strides_of


@pytest.fixture(scope='module')
def student() -> nn.Module:
    return build(segmentor(auxiliary=True))


@pytest.fixture(scope='module')
def teacher() -> nn.Module:
    return build(segmentor(16))


def pairs(**entries: dict[str, Any]) -> list[Pair]:
    return [parse_pair(name, entry) for name, entry in entries.items()]


def lines(found: Findings) -> list[tuple[str, str]]:
    return [(finding.where, finding.message) for finding in found]


def test_a_good_pair_is_no_finding(student: nn.Module, teacher: nn.Module) -> None:
    found = Findings()
    entry = dict(tap='backbone.layer2', loss=COSINE, weight=0.1)
    check_pair(found, 'mid', entry)
    assert check_tap_paths(found, 'mid', entry, student, teacher)
    assert found == []


def test_all_mistakes_of_one_pair_are_told(student: nn.Module, teacher: nn.Module) -> None:
    found = Findings()
    entry = dict(
        student_tap='backbone.layr2',
        teacher_tap='bacbone.layer3',
        loss=dict(type='kdplugin.CosinLoss'),
        weight=-1,
        wieght=1,
    )
    check_pair(found, 'mid', entry)
    assert not check_tap_paths(found, 'mid', entry, student, teacher)
    mid = 'model.pairs.mid'
    assert [where for where, _ in lines(found)] == [mid, mid, mid, f'{mid}.student_tap', f'{mid}.teacher_tap']
    expected = [
        "in pair 'mid' but got 'wieght'. Did you mean 'weight'?",
        "Expected a finite weight >= 0 in pair 'mid' but got -1",
        "known loss type in pair 'mid' but got 'kdplugin.CosinLoss'. Did you mean 'kdplugin.CosineLoss'",
        "module path of the student but got 'backbone.layr2'. Did you mean 'backbone.layer2'",
        "module path of the teacher but got 'bacbone.layer3'. Did you mean 'backbone.layer3'",
    ]
    assert len(found) == len(expected)
    for (_, message), part in zip(lines(found), expected, strict=True):
        assert part in message


def test_wrong_arguments_of_a_loss_are_an_error() -> None:
    found = Findings()
    check_pair(found, 'mid', dict(tap='backbone', loss=dict(**COSINE, tau=1)))
    assert "unexpected keyword argument 'tau'. Correct its arguments." in found[0].message


def test_a_tap_of_a_missing_model_is_said_to_be_unchecked(student: nn.Module) -> None:
    found = Findings()
    assert check_tap_paths(found, 'mid', dict(tap='backbone', loss=COSINE), student, None)
    assert [(item.level, item.message) for item in found] == [
        ('note', 'not checked: its teacher tap, because there is no teacher to look at.')
    ]


def test_only_the_pairs_that_do_not_fit_are_taken_out(student: nn.Module, teacher: nn.Module) -> None:
    found = Findings()
    good = check_taps(
        found,
        pairs(
            low=dict(tap='backbone.layer1', loss=COSINE),
            auxiliary=dict(student_tap='auxiliary_head.conv_seg', teacher_tap='decode_head.conv_seg', loss=KL),
            levels=dict(student_tap='backbone', teacher_tap='backbone.layer4', loss=COSINE),
            idle=dict(student_tap='data_preprocessor', teacher_tap='backbone.layer1', loss=COSINE),
            classes=dict(student_tap='decode_head.convs', teacher_tap='decode_head.conv_seg', loss=KL),
            scalar=dict(student_tap='decode_head.loss_decode', teacher_tap='decode_head.conv_seg', loss=KL),
        ),
        student,
        teacher,
    )
    assert [pair.name for pair in good] == ['low', 'auxiliary']
    expected = {
        'model.pairs.idle': "['data_preprocessor'] did not run in this forward pass",
        'model.pairs.levels': "'backbone' gives 4 and 'backbone.layer4' gives 1",
        'model.pairs.classes': "'decode_head.convs' has 8 channels and 'decode_head.conv_seg' has 11",
        'model.pairs.scalar': 'tensors with channels (N, C, ...) but got () and (1, 11, 8, 8)',
    }
    assert [finding.where for finding in found] == list(expected)
    for finding in found:
        assert expected[finding.where] in finding.message


def test_a_model_that_does_not_run_is_told_once(student: nn.Module) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, inputs: object, samples: object, mode: str) -> None:
            raise ValueError('no such mode')

    found = Findings()
    entry = dict(student_tap='backbone', teacher_tap='layer', loss=COSINE)
    assert check_taps(found, pairs(a=entry, b=entry), student, Broken()) == []
    assert [finding.where for finding in found] == ['teacher']
    assert 'Expected the teacher to run once' in found[0].message
    assert 'ValueError: no such mode' in found[0].message


def test_strides_far_apart_are_a_warning(student: nn.Module, teacher: nn.Module) -> None:
    found = Findings()
    entries = dict(
        near=dict(student_tap='backbone.layer1', teacher_tap='backbone.layer3', loss=COSINE),
        far=dict(student_tap='backbone.layer1', teacher_tap='backbone.layer4', loss=COSINE),
    )
    assert len(check_taps(found, pairs(**entries), student, teacher)) == 2
    assert [(one.level, one.where) for one in found] == [('warning', 'model.pairs.far')]
    assert 'the student has 4 and the teacher 32' in found[0].message
    probed = probe(student, ['backbone'], 'student')
    assert strides_of(probed, ['backbone']) == [4.0, 8.0, 16.0, 32.0]


@pytest.mark.parametrize(
    ('changes', 'key', 'cure'),
    [
        (dict(loss='kdplugin.PKDLoss'), 'loss', "Write loss=dict(type='kdplugin.PKDLoss')"),
        (dict(loss=[COSINE]), 'loss', 'Write loss=dict(type='),
        (dict(tap=['backbone', 'neck']), 'tap', 'Write a pair for each path'),
    ],
)
def test_one_tap_and_one_loss(changes: dict[str, Any], key: str, cure: str) -> None:
    found = Findings()
    check_pair(found, 'mid', {'tap': 'backbone', 'loss': COSINE, **changes})
    ((where, message),) = lines(found)
    assert where == f'model.pairs.mid.{key}'
    assert cure in message


@pytest.mark.parametrize(
    ('tap', 'loss', 'told'),
    [
        ('bbox_head.gfl_reg', 'KLDivergenceLoss', True),
        ('bbox_head.gfl_cls', 'KLDivergenceLoss', False),
        ('bbox_head.gfl_reg', 'LocalizationDistillationLoss', False),
    ],
)
def test_sides_of_boxes_are_distributions_of_their_own(tap: str, loss: str, told: bool) -> None:
    found = Findings()
    check_pair(found, 'box', dict(tap=tap, loss=dict(type=f'kdplugin.{loss}'), weight=1.0))
    assert [(one.level, one.where) for one in found] == [('warning', 'model.pairs.box.loss')] * told
    assert all('one distribution for each side of a box' in one.message for one in found)
