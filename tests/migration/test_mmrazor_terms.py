from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import build
from mmrazor_recipes import CWD, distiller, mapping, pyramid_recipe, side

from kdplugin.errors import ConfigError
from kdplugin.migration.mmrazor_terms import pairs_of, read_terms
from kdplugin.migration.notes import Note
from kdplugin.migration.observe import observe

PKD = dict(type='PKDLoss', loss_weight=6)


def pairs(model: Any, batch: int = 2) -> tuple[dict[str, Any], list[Note]]:
    """Return the pairs and notes of a distiller, the student being its own teacher."""
    config = pyramid_recipe(1, PKD)
    notes: list[Note] = []
    terms = read_terms(model, notes)
    built = build(config.model.architecture)
    paths = [record.path for term in terms for record in (term.student, term.teacher)]
    run = observe(built, paths, 'student', (96, 160))
    return pairs_of(terms, run, run, batch, notes), notes


def levels(
    count: int, loss: dict[str, Any], source: str = 'neck', key: str = 'data_idx', **more: Any
) -> dict[str, Any]:
    losses = {f'loss_fpn{n}': loss for n in range(count)}
    return distiller(losses, {f'loss_fpn{n}': mapping(**{key: n}) for n in range(count)}, source, **more)


def test_all_levels_of_a_module_are_one_pair_of_their_sum() -> None:
    found, notes = pairs(levels(5, CWD))
    assert found == dict(fpn=dict(tap='neck', loss=dict(type='kdplugin.CWDLoss', temperature=4.0), weight=15.0))
    assert [note.kind for note in notes] == ['converted']
    assert 'sum over 5 levels, here their mean: times 5' in notes[0].message


def test_some_levels_are_pairs_of_their_own_at_the_module_of_each() -> None:
    found, notes = pairs(levels(2, PKD))
    assert found == {
        f'fpn{n}': dict(tap=f'neck.fpn_convs.{n}', loss=dict(type='kdplugin.PKDLoss'), weight=6.0) for n in range(2)
    }
    assert [note.kind for note in notes] == ['kept', 'kept']


def test_calls_of_a_head_are_levels_too() -> None:
    found, _ = pairs(levels(5, CWD, 'bbox_head.gfl_cls', 'record_idx'))
    assert found['fpn']['tap'] == 'bbox_head.gfl_cls'
    assert found['fpn']['weight'] == 15.0


def test_levels_with_factors_of_their_own_stay_apart() -> None:
    found, _ = pairs(levels(5, dict(type='KLDivergence', tau=2)))
    grids = [12 * 20, 6 * 10, 3 * 5, 2 * 3, 1 * 2]
    assert [pair['weight'] for pair in found.values()] == grids
    assert [pair['tap'] for pair in found.values()] == [f'neck.fpn_convs.{n}' for n in range(5)]


def test_a_loss_that_takes_the_whole_pyramid_sums_over_it() -> None:
    found, _ = pairs(distiller(dict(loss_x=PKD), dict(loss_x=mapping()), 'neck'))
    assert found == dict(x=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), weight=30.0))


def test_sides_may_look_at_other_modules() -> None:
    model = distiller(dict(loss_x=PKD), dict(loss_x=mapping(data_idx=0)), 'neck')
    model['teacher_recorders'] = dict(x=dict(type='ModuleOutputs', source='backbone'))
    model['loss_forward_mappings']['loss_x']['preds_T'] = side('x', False, data_idx=3)
    found, _ = pairs(model)
    assert found['x'] | dict(weight=0) == dict(
        student_tap='neck.fpn_convs.0', teacher_tap='backbone.layer4', loss=dict(type='kdplugin.PKDLoss'), weight=0
    )


def test_names_stay_apart_and_contain_no_loss() -> None:
    losses = {'loss_a': CWD, 'a.loss': PKD, 'kd_loss': PKD, 'loss': PKD}
    model = distiller(losses, {name: mapping(data_idx=0) for name in losses}, 'neck')
    assert list(pairs(model)[0]) == ['a', 'a_2', 'kd', 'pair']


def test_what_mmrazor_does_not_train_is_left_out() -> None:
    losses = dict(metric=PKD, loss_b=PKD, loss_x=PKD)
    mappings = dict(metric=mapping(data_idx=0), loss_x=mapping(data_idx=0))
    found, notes = pairs(distiller(losses, mappings, 'neck'))
    assert list(found) == ['x']
    assert [(note.kind, note.where) for note in notes[:2]] == [('left out', 'metric'), ('left out', 'loss_b')]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(student_recorders=dict(x=dict(type='MethodOutputs', source='a.b.C.d'))), "'x' is MethodOutputs"),
        (
            dict(loss_forward_mappings=dict(loss_fpn0=dict(mapping(), gt=side('x', True)))),
            "one of the teacher but loss_fpn0 takes ['preds_S', 'preds_T', 'gt']",
        ),
        (dict(loss_forward_mappings=dict(loss_fpn0=mapping(data_idx=7))), 'with tensor 7 but it runs 1 times'),
        (dict(loss_forward_mappings=dict(loss_fpn0=mapping(record_idx=2))), "Expected call 2 of 'neck'"),
        (dict(loss_forward_mappings=dict(loss_fpn0=mapping())), 'as many tensors of both sides as ChannelWiseDiv'),
        (
            dict(connectors=dict(c=dict(type='NormConnector')), loss_forward_mappings=dict(loss_fpn0=dict(
                preds_S=side('x', True, data_idx=0), preds_T=side('x', False, data_idx=0, connector='c')))),
            'Expected the teacher as it is but loss_fpn0 sees it through NormConnector.',
        ),
        (
            dict(loss_forward_mappings=dict(loss_fpn0=mapping(data_idx=0, connector_idx=1))),
            'one output but got connector_idx',
        ),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_a_note(change: dict[str, Any], message: str) -> None:
    found, notes = pairs(levels(1, CWD) | change)
    assert found == {}
    assert [note.kind for note in notes] == ['no counterpart']
    assert message in notes[0].message


def test_a_tensor_that_no_module_puts_out_alone_has_no_tap() -> None:
    _, notes = pairs(levels(1, CWD, 'bbox_head.gfl_cls', 'record_idx'))
    assert [note.kind for note in notes] == ['no counterpart']
    assert "puts out tensor 0 of call 0 of 'bbox_head.gfl_cls', and nothing else" in notes[0].message


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(distill_losses=dict(loss_fpn=CWD)),
            r"loss of distill_losses but got 'loss_fpn0'\. Did you mean 'loss_fpn'",
        ),
        (dict(teacher_recorders=dict(y=1)), r"a recorder of teacher_recorders but got 'x'\."),
        (dict(loss_forward_mappings=dict(loss_fpn0=mapping(connector='c'))), r"one of the connectors but got 'c'\."),
    ],
)
def test_names_of_nothing_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_terms(levels(1, CWD) | change, [])
