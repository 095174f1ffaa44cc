from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.data_counts import check_whole_batches, most_images


def loader(batch: int, dataset: dict[str, Any], drop: bool = True) -> dict[str, Any]:
    return dict(train_dataloader=dict(batch_size=batch, drop_last=drop, dataset=dataset))


def test_images_are_counted_without_a_dataset(tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[{}, {}, {}])))
    (tmp_path / 'b.json').write_text('no json')
    (tmp_path / 'c.json').write_text('[1]')
    root = str(tmp_path)
    assert most_images(dict(data_root=root, ann_file='a.json')) == 3
    assert most_images(dict(ann_file=f'{root}/a.json')) == 3
    assert most_images(dict(data_root=root, ann_file='a.json', indices=2)) == 2
    for file in ('b.json', 'c.json', 'gone.json', 'a.txt', None):
        assert most_images(dict(data_root=root, ann_file=file)) is None


@pytest.mark.parametrize(
    ('config', 'number'),
    [
        (loader(4, dict(indices=3)), 1),
        (loader(3, dict(indices=3)), 0),
        (loader(4, dict(indices=3), drop=False), 0),
        (loader(4, dict(type='RepeatDataset', dataset=dict(indices=3))), 0),
        ({}, 0),
    ],
)
def test_a_batch_has_its_images(config: dict[str, Any], number: int) -> None:
    told = says(check_whole_batches, config)
    assert [(level, where) for level, where, _ in told] == [('error', 'train_dataloader.drop_last')] * number
    assert not told or 'write drop_last=False' in told[0][2]
