from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from synthetic_runs import distilled, make_run, recipe, train_line, val_line, write_segment

from kdplugin.reports.compare import Comparison, compare
from kdplugin.reports.comparison_report import comparison_parts, write_comparison
from kdplugin.reports.tables import render


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return compare(
        make_run(tmp_path / 'baseline', [40.0, 50.0]),
        make_run(tmp_path / 'kd', [45.0, 55.0], kd=True, config=distilled(randomness=dict(seed=7))),
        make_run(tmp_path / 'teacher', [60.0]),
    )


def test_the_folder_holds_the_numbers_and_three_pictures(comparison: Comparison, tmp_path: Path) -> None:
    paths = write_comparison(comparison, tmp_path / 'out' / 'deep')
    assert [path.name for path in paths] == ['report.json', 'metric.png', 'losses.png', 'report.png']
    for path in paths[1:]:
        with Image.open(path) as image:
            assert image.width == 1200
            assert len(image.convert('L').getcolors(maxcolors=256) or []) > 20


def test_the_json_holds_every_number_and_relative_paths(comparison: Comparison, tmp_path: Path) -> None:
    (path, *_) = write_comparison(comparison, tmp_path / 'out')
    assert str(tmp_path) not in path.read_text()
    report = json.loads(path.read_text())
    assert report['rule'] == 'best'
    assert report['metrics'][0] == {
        'name': 'mIoU', 'baseline': 50.0, 'kd': 55.0, 'delta': 5.0, 'improvement_percent': 10.0, 'teacher': 60.0,
        'higher_is_better': True,
    }  # fmt: skip
    assert report['gap_to_teacher_closed_percent'] == pytest.approx(50.0)
    assert [row['name'] for row in report['per_class']] == ['background', 'zero', 'one', 'two']
    assert report['cost_setting']['input'] == [32, 48]
    assert report['runs']['kd']['curve'] == [[100, 45.0], [200, 55.0]]
    checkpoint = (path.parent / report['runs']['kd']['checkpoint']).resolve()
    assert checkpoint == (tmp_path / 'kd' / 'best_mIoU_iter_200.pth').resolve()
    assert report['warnings'] == ['not the same recipe: randomness.seed is 0 in the baseline, 7 in KD']
    assert report['versions']['torch'].startswith('2.')


def test_the_text_shows_rule_numbers_and_warnings(comparison: Comparison) -> None:
    text = render(*comparison_parts(comparison))
    assert 'the best validation of each run by mIoU (iteration: baseline at 200, KD at 200, teacher at 100)' in text
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ['mIoU']]
    assert line.split() == ['mIoU', '50.00', '55.00', '+5.00', '+10.0', '%', '60.00']
    assert 'gap to the teacher closed: 50 %' in text
    assert 'one image of 32x48, CPU' in text
    assert 'WARNING not the same recipe: randomness.seed' in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_without_a_teacher_there_is_no_column_for_one(tmp_path: Path) -> None:
    result = compare(make_run(tmp_path / 'a', [40.0]), make_run(tmp_path / 'b', [41.0], kd=True))
    assert 'teacher' not in render(*comparison_parts(result))
    report = json.loads(write_comparison(result, tmp_path / 'out')[0].read_text())
    assert report['gap_to_teacher_closed_percent'] is None
    assert report['metrics'][0]['teacher'] is None


def test_nan_becomes_null(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        lines = [train_line(10), val_line(10, float('nan')), val_line(20, 40.0)]
        write_segment(tmp_path / name, '1', lines, recipe())
    path = write_comparison(compare(tmp_path / 'a', tmp_path / 'b', rule='last'), tmp_path / 'out')[0]
    assert json.loads(path.read_text())['runs']['kd']['curve'] == [[10, None], [20, 40.0]]


def test_runs_by_epoch_without_classes_or_kd_terms_are_drawn_too(tmp_path: Path) -> None:
    config = recipe(default_hooks=dict(logger=dict(type='LoggerHook')))
    folders = [make_run(tmp_path / name, [40.0], config=config) for name in ('a', 'b')]
    for folder in folders:
        for log in folder.glob('*/*.log'):
            log.unlink()
    result = compare(*folders)
    assert json.loads(write_comparison(result, tmp_path / 'out')[0].read_text())['steps_are'] == 'epochs'
    assert '(epoch: baseline at 100' in render(*comparison_parts(result))
