from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import CLASSES, class_table, class_values, text_log

from kdplugin.reports.class_tables import class_scalars, match_class_tables, read_class_tables


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def column(table: dict[str, dict[str, float]], name: str = 'IoU') -> list[float]:
    return [row[name] for row in table.values()]


def test_tables_are_read_in_order(tmp_path: Path) -> None:
    tables = read_class_tables(write(tmp_path / 'a.log', text_log([40.0, 50.0])))
    assert [column(table) for table in tables] == [class_values(40.0), class_values(50.0)]
    assert list(tables[0]) == list(CLASSES)


def test_what_mmseg_itself_prints_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip('torch')
    metrics = pytest.importorskip('mmseg.evaluation.metrics')
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('class-tables', log_file=str(tmp_path / 'real.log'), log_level='INFO')
    metric = metrics.IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = {'classes': ('background', 'hand written', 'never there')}
    predicted, truth = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1])
    means = metric.compute_metrics([metric.intersect_and_union(predicted, truth, 3, 255)])
    for handler in logger.handlers:
        handler.flush()
    (table,) = read_class_tables(tmp_path / 'real.log')
    assert table['background'] == {'IoU': 66.67, 'Acc': 66.67}
    assert table['hand written'] == {'IoU': 66.67, 'Acc': 100.0}
    (matched,) = match_class_tables([table], [means['mIoU']], 'IoU')
    assert matched.keys() == table.keys()


def test_a_table_goes_to_the_validation_whose_mean_it_has(tmp_path: Path) -> None:
    tables = read_class_tables(write(tmp_path / 'a.log', text_log([40.0, 50.0, 60.0])))
    found = match_class_tables(tables, [40.0, 60.0], 'IoU')
    assert [list(values.values()) for values in found] == [class_values(40.0), class_values(60.0)]


def test_a_validation_without_a_table_gets_none(tmp_path: Path) -> None:
    tables = read_class_tables(write(tmp_path / 'a.log', text_log([50.0])))
    assert match_class_tables(tables, [47.0, 50.0, 50.0], 'IoU') == [
        {},
        dict(zip(CLASSES, class_values(50.0), strict=True)),
        {},
    ]
    assert match_class_tables(tables, [50.0], 'Dice') == [{}]


def test_other_tables_and_cut_off_ones_are_left_alone(tmp_path: Path) -> None:
    table = class_table(class_values(40.0)).splitlines()
    text = '\n'.join([*table[:5], 'a killed process', '| two | 1.0 | 2.0 |', '| category | mAP |', '| zero | 0.5 |'])
    (found,) = read_class_tables(write(tmp_path / 'a.log', text))
    assert list(found) == ['background', 'zero']


def test_mmdet_writes_class_precisions_into_its_scalars() -> None:
    scalars = {'coco/bbox_mAP': 0.4, 'coco/zero_precision': 0.3, 'coco/traffic light_precision': 0.5}
    assert class_scalars(scalars) == {'zero': 0.3, 'traffic light': 0.5}
