from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import class_values, make_run, recipe, text_log, train_line, val_line, write_segment

from kdplugin.errors import DataError
from kdplugin.reports.compare import compare

BASELINE, KD, TEACHER = [20.0, 45.0, 40.0], [25.0, 42.0, 48.0], [60.0, 65.0, 60.0]


def runs(tmp_path: Path) -> tuple[Path, Path, Path]:
    wide = recipe(model=dict(type='TinySegmentor', width=8))
    return (
        make_run(tmp_path / 'baseline', BASELINE),
        make_run(tmp_path / 'kd', KD, kd=True),
        make_run(tmp_path / 'teacher', TEACHER, config=wide, width=8),
    )


@pytest.mark.parametrize(
    ('rule', 'steps', 'values', 'closed'),
    [
        ('best', [200, 300, 200], [45.0, 48.0, 65.0], 15.0),
        ('last', [300, 300, 300], [40.0, 48.0, 60.0], 40.0),
    ],
)
def test_one_rule_for_every_run(
    tmp_path: Path, rule: str, steps: list[int], values: list[float], closed: float
) -> None:
    result = compare(*runs(tmp_path), rule=rule)  # type: ignore[arg-type]
    assert [value.step for value in result.selected.values()] == steps
    row = result.metrics[0]
    assert (row.name, row.baseline, row.kd, row.teacher) == ('mIoU', *values)
    assert result.gap_closed == pytest.approx(closed)
    assert [row.name for row in result.metrics] == ['mIoU', 'aAcc', 'mAcc']
    assert [row.baseline for row in result.per_class] == class_values(values[0])
    assert [row.kd for row in result.per_class] == class_values(values[1])
    assert [row.teacher for row in result.per_class] == class_values(values[2])
    assert result.warnings == []
    assert result.notes == []


def test_without_a_teacher_there_is_no_gap(tmp_path: Path) -> None:
    baseline, kd, _ = runs(tmp_path)
    result = compare(baseline, kd)
    assert result.gap_closed is None
    assert all(row.teacher is None for row in (*result.metrics, *result.per_class, *result.costs))


def test_a_teacher_no_better_than_the_baseline_has_no_gap_to_close(tmp_path: Path) -> None:
    baseline, kd, _ = runs(tmp_path)
    assert compare(baseline, kd, make_run(tmp_path / 'weak', [44.0])).gap_closed is None


def test_a_missing_class_table_leaves_the_section_out_and_says_so(tmp_path: Path) -> None:
    baseline, kd, _ = runs(tmp_path)
    for log in kd.glob('*/*.log'):
        log.unlink()
    result = compare(baseline, kd)
    assert result.per_class == []
    assert any('no per-class section' in note for note in result.notes)


def test_the_notes_of_a_run_and_unshared_metrics_are_told(tmp_path: Path) -> None:
    baseline, _, _ = runs(tmp_path)
    lines = [train_line(300, kd=True), {**val_line(300, 48.0), 'mDice': 3.0}]
    folder = write_segment(tmp_path / 'other', '1', lines, recipe(), text_log([48.0]))
    with open(folder / 'vis_data' / 'scalars.json', 'a') as file:
        file.write('{')
    notes = compare(baseline, tmp_path / 'other').notes
    assert 'kd: the last line of 1/vis_data/scalars.json is cut off' in notes
    assert 'left out, in one of the two runs only: mDice' in notes


@pytest.mark.parametrize('role', ['kd', 'teacher'])
def test_another_metric_is_an_error(tmp_path: Path, role: str) -> None:
    baseline, kd, _ = runs(tmp_path)
    write_segment(tmp_path / 'x', '1', [train_line(10), {'coco/bbox_mAP': 0.3, 'step': 10}], recipe())
    arguments = (baseline, tmp_path / 'x') if role == 'kd' else (baseline, kd, tmp_path / 'x')
    with pytest.raises(DataError, match=rf"metric 'mIoU' of the baseline in the {role} run .* got \['coco/bbox_mAP'\]"):
        compare(*arguments)


def test_coco_numbers_are_fractions_and_minus_one_is_no_number(tmp_path: Path) -> None:
    for name, value in (('a', 0.3), ('b', 0.36)):
        line = {'coco/bbox_mAP': value, 'coco/bbox_mAP_s': -1.0, 'coco/zero_precision': value, 'step': 10}
        write_segment(tmp_path / name, '1', [train_line(10), line], recipe())
    result = compare(tmp_path / 'a', tmp_path / 'b')
    assert result.primary == 'coco/bbox_mAP'
    assert result.metrics[0].digits == 3
    assert result.metrics[0].improvement == pytest.approx(20.0)
    assert (result.metrics[1].baseline, result.metrics[1].delta) == (None, None)
    assert [row.name for row in result.per_class] == ['zero']
