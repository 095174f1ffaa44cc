from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from seed_runs import BASELINE, KD, seed_runs
from synthetic_runs import make_run

from kdplugin.reports import seed_report
from kdplugin.reports.compare_seeds import SeedComparison, compare_seeds
from kdplugin.reports.plots import new_figure
from kdplugin.reports.seed_report import seed_cells, seed_parts, write_seed_comparison
from kdplugin.reports.tables import render


@pytest.fixture(scope='module')
def comparison(tmp_path_factory: pytest.TempPathFactory) -> SeedComparison:
    root: Path = tmp_path_factory.mktemp('runs')
    return compare_seeds(*seed_runs(root), make_run(root / 'teacher', [82.37]))


@pytest.fixture(scope='module')
def written(comparison: SeedComparison, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_seed_comparison(comparison, tmp_path_factory.mktemp('out') / 'deep')


def test_the_table_by_seed_ends_with_means_and_spreads(comparison: SeedComparison) -> None:
    assert seed_cells(comparison) == [
        ['0', '47.43', '54.49', '+7.06'],
        ['1', '44.66', '55.10', '+10.44'],
        ['2', '44.29', '56.76', '+12.47'],
        ['mean', '45.46 ± 1.72', '55.45 ± 1.17', '+9.99 ± 2.73'],
    ]


def test_the_text_has_it_all(comparison: SeedComparison) -> None:
    text = render(*seed_parts(comparison))
    assert text.startswith('mIoU: KD gains +9.99 on average over 3 seeds (standard deviation 2.73)')
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows['mAcc'] == ['mAcc', '50.46', '±', '1.72', '60.45', '±', '1.17', '+9.99', '2.73']
    assert 'zero' in rows


def test_the_json_has_every_number(comparison: SeedComparison, written: list[Path]) -> None:
    assert [path.name for path in written] == ['report.json', 'seeds.png', 'classes.png', 'report.html']
    report = json.loads(written[0].read_text())
    assert report['seeds'] == [0, 1, 2]
    row = report['metrics'][0]
    assert (row['baseline'], row['kd']) == (list(BASELINE.values()), list(KD.values()))
    assert row['gains'] == [7.06, 10.44, 12.47]
    assert row['mean_gain'] == 9.99
    assert row['standard_deviation_of_gains'] == pytest.approx(((2.93**2 + 0.45**2 + 2.48**2) / 2) ** 0.5, abs=1e-6)
    assert set(report['gap_to_teacher_closed_percent']) == {'0', '1', '2'}
    folder = (written[0].parent / report['work_dirs']['1']['kd']).resolve()
    assert folder == comparison.by_seed[1].runs['kd'].work_dir.resolve()
    assert {row['name'] for row in report['costs']} >= {'parameters'}


def test_the_page_needs_nothing_else(written: list[Path]) -> None:
    page = written[-1].read_text(encoding='utf-8')
    sources = re.findall(r'\bsrc="([^"]*)"', page)
    assert len(sources) == 2 + 2 * 3
    for source in sources:
        head, data = source.split(',')
        assert head == 'data:image/png;base64'
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.width == 1200
    assert not re.search(r'https?:|<script|<link|@import|url\(', page)
    for cell in ('47.43', '+10.44', '+9.99 ± 2.73', 'background', 'parameters'):
        assert f'<td>{cell}</td>' in page
    assert page.count('<details>') == 3
    assert written[-1].stat().st_size < 3_000_000


def test_without_classes_there_is_no_picture_of_them(
    comparison: SeedComparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('draw_report', 'draw_losses'):
        monkeypatch.setattr(seed_report, name, lambda one: new_figure(1.0))
    written = write_seed_comparison(replace(comparison, per_class=[]), tmp_path)
    assert [path.name for path in written] == ['report.json', 'seeds.png', 'report.html']
    assert 'By class' not in written[-1].read_text()
