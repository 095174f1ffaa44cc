from __future__ import annotations

from pathlib import Path

from synthetic_runs import make_run, recipe, train_line, val_line, write_segment

from kdplugin.reports.loss_terms import loss_terms
from kdplugin.reports.run_log import read_run


def test_the_parts_add_up_to_the_total_at_every_logged_step(tmp_path: Path) -> None:
    terms = loss_terms(read_run(make_run(tmp_path, [40.0, 50.0], kd=True)))
    assert list(terms.raw) == list(terms.weights) == list(terms.weighted) == ['logits', 'low']
    for index, total in enumerate(terms.total[1]):
        weighted = sum(values[index] for _, values in terms.weighted.values())
        assert abs(terms.task[1][index] + weighted - total) < 1e-12
        for pair in terms.raw:
            product = terms.raw[pair][1][index] * terms.weights[pair][1][index]
            assert abs(product - terms.weighted[pair][1][index]) < 1e-12


def test_without_distillation_the_task_is_the_total(tmp_path: Path) -> None:
    terms = loss_terms(read_run(make_run(tmp_path, [40.0])))
    assert terms.task == terms.total
    assert terms.raw == {}
    assert terms.components == {}


def test_several_task_components_are_kept_apart_without_deep_supervision(tmp_path: Path) -> None:
    extra = {'loss_cls': 1.0, 'loss_bbox': 2.0, 'd0.loss_cls': 3.0}
    write_segment(tmp_path, '1', [train_line(10, kd=True, **extra), val_line(10, 50.0)], recipe())
    terms = loss_terms(read_run(tmp_path))
    assert list(terms.components) == ['decode.loss_ce', 'loss_cls', 'loss_bbox']
    assert terms.components['loss_bbox'] == ([10], [2.0])
