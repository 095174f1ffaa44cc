from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orion_models as orion
import pytest
from engine_fixtures import COSINE, kd_segmentor, save_weights
from engine_fixtures import shared as shared
from mmengine.config import Config
from PIL import Image
from pruning_configs import loader

from kdplugin.visualization.visualize import visualize


def write(path: Path, content: dict[str, Any]) -> Path:
    plain = Config(content).to_dict()
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in plain.items() if key != 'env_variables'))
    return path


@pytest.fixture
def segmentation(shared: Path, tmp_path: Path) -> Path:
    dataset = dict(
        type='BaseSegDataset', data_root=str(shared / 'digits'), img_suffix='.png', seg_map_suffix='.png',
        data_prefix=dict(img_path='val/images', seg_map_path='val/masks'), metainfo=dict(classes=('a',)),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')],
    )  # fmt: skip
    content = dict(default_scope='mmseg', model=kd_segmentor(shared), val_dataloader=dict(dataset=dataset))
    return write(tmp_path / 'kd.py', content)


def test_a_picture_for_each_image_and_pair_and_their_numbers(segmentation: Path, tmp_path: Path) -> None:
    text = visualize(segmentation, out=tmp_path / 'out', count=2)
    names = [f'{n:02d}_00000{n}_{pair}.png' for n in range(2) for pair in ('feature', 'logits')]
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [*names, 'numbers.json']
    for name in names:
        with Image.open(tmp_path / 'out' / name) as picture:
            assert picture.width > 1000
    content = json.loads((tmp_path / 'out' / 'numbers.json').read_text())
    assert [record['picture'] for record in content['pictures']] == names
    levels = [level['numbers'] for record in content['pictures'] for level in record['levels']]
    assert len(levels) == 2 * (4 + 1)
    errors = [one['numbers']['relative error'] for n in (0, 2) for one in content['pictures'][n]['levels']]
    assert content['means']['feature']['relative error'] == pytest.approx(sum(errors) / 8, abs=1e-5)
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ['feature'])
    assert row[1] == f'{content["means"]["feature"]["relative error"]:.3f}'
    assert row[-1] == '-'
    assert 'WARNING adapters of feature have random weights: their maps and numbers say little' in text
    assert f'wrote {tmp_path / "out" / names[0]}' in text


def test_images_by_path_and_pairs_by_name(segmentation: Path, tmp_path: Path) -> None:
    files = [tmp_path / 'a b.png', tmp_path / 'sub' / 'a b.png']
    (tmp_path / 'sub').mkdir()
    for size, file in zip((32, 50), files, strict=True):
        Image.new('RGB', (size, size), 'red').save(file)
    visualize(segmentation, files, out=tmp_path / 'out', pairs=['logits'])
    written = sorted(path.name for path in (tmp_path / 'out').glob('*.png'))
    assert written == ['00_a_b_logits.png', '01_a_b_logits.png']


def test_attention_and_features_of_a_detector(shared: Path, tmp_path: Path) -> None:
    teacher = orion.save_teacher(tmp_path)
    pairs = dict(
        attention=dict(type='kdplugin.AttentionKD', blocks=[0, 1]),
        tokens=dict(tap='backbone.blocks.1', student_layout='NHWC', teacher_layout='NHWC', loss=COSINE),
    )
    model = dict(
        type='kdplugin.Distiller', student=orion.teacher(), pairs=pairs,
        teacher=dict(model=orion.teacher(), checkpoint=teacher),
    )  # fmt: skip
    content = dict(default_scope='mmdet', model=model, test_dataloader=loader(shared, 'val'))
    config = write(tmp_path / 'kd.py', content)
    trained = save_weights(orion.teacher(), tmp_path / 'student.pth', seed=5)
    visualize(config, checkpoint=trained, out=tmp_path / 'out', count=1)
    attention, tokens = json.loads((tmp_path / 'out' / 'numbers.json').read_text())['pictures']
    assert [level['level'].split('\n')[0] for level in attention['levels']] == [
        'backbone.blocks.0.attn.qk', 'backbone.blocks.1.attn.qk'
    ]  # fmt: skip
    assert all(level['numbers']['KL'] > 0 for level in attention['levels'])
    assert tokens['levels'][0]['student'] == [32, 4, 4]
    visualize(config, checkpoint=teacher, out=tmp_path / 'same', count=1)
    attention, tokens = json.loads((tmp_path / 'same' / 'numbers.json').read_text())['pictures']
    assert all(level['numbers']['KL'] == pytest.approx(0, abs=1e-5) for level in attention['levels'])
    assert tokens['levels'][0]['numbers']['relative error'] == pytest.approx(0, abs=1e-4)
