from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import zoom
from sklearn.neighbors import KNeighborsClassifier

from kdplugin.datasets import digit_scenes
from kdplugin.datasets.digit_drawing import CLASSES, SceneSettings, digit_images, render_digit, split_digits
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.errors import ConfigError, DataError

TINY = {'train': 6, 'val': 3, 'size': 96, 'progress': False}
TOOL = Path(__file__).parents[2] / 'tools' / 'make_digit_scenes.py'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    make_digit_scenes(out, **TINY)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def coco(folder: Path, split: str) -> dict:
    return json.loads((folder / 'annotations' / f'{split}.json').read_text())


def test_layout(scenes):
    expected = {'meta.json', 'annotations/train.json', 'annotations/val.json'}
    for split, count in (('train', 6), ('val', 3)):
        expected |= {f'{split}/{kind}/{i:06d}.png' for kind in ('images', 'masks') for i in range(count)}
    assert set(contents(scenes)) == expected
    image, mask = (Image.open(scenes / 'train' / kind / '000000.png') for kind in ('images', 'masks'))
    assert (image.mode, image.size, mask.mode, mask.size) == ('RGB', (96, 96), 'L', (96, 96))


def test_same_arguments_same_bytes(scenes, tmp_path):
    make_digit_scenes(tmp_path / 'again', **TINY)
    assert contents(tmp_path / 'again') == contents(scenes)


def test_another_seed_changes_every_image(scenes, tmp_path):
    make_digit_scenes(tmp_path / 'other', **TINY, seed=1)
    first, second = contents(scenes), contents(tmp_path / 'other')
    assert not [name for name in first if name.endswith('.png') and first[name] == second[name]]


def test_more_scenes_continue_a_smaller_set(scenes, tmp_path):
    make_digit_scenes(tmp_path / 'few', **{**TINY, 'train': 2, 'val': 1})
    few, many = contents(tmp_path / 'few'), contents(scenes)
    assert [name for name in few if few[name] != many[name]] == [name for name in few if name.endswith('.json')]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_boxes_masks_and_semantic_labels_agree(scenes, split):
    annotations = coco(scenes, split)
    assert annotations['categories'] == [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)]
    for image in annotations['images']:
        semantic = np.array(Image.open(scenes / split / 'masks' / image['file_name']))
        assert set(np.unique(semantic)) <= {*range(11), 255}
        rebuilt = np.zeros_like(semantic)
        for item in annotations['annotations']:
            if item['image_id'] != image['id']:
                continue
            mask = rle.decode(item['segmentation']).astype(bool)
            assert not rebuilt[mask].any()
            rebuilt[mask] = item['category_id']
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert item['bbox'] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert item['area'] == mask.sum() > 0
        np.testing.assert_array_equal(np.where(semantic == 255, 0, semantic), rebuilt)
    assert len({item['id'] for item in annotations['annotations']}) == len(annotations['annotations'])


def test_train_and_val_never_share_a_digit(scenes):
    used = {split: {item['source'] for item in coco(scenes, split)['annotations']} for split in ('train', 'val')}
    pools = dict(zip(('train', 'val'), split_digits(0), strict=True))
    for split in used:
        assert used[split] <= set(np.concatenate(pools[split]))
    assert not used['train'] & used['val']


def test_statistics_and_the_share_of_ambiguous_pixels(scenes):
    statistics = json.loads((scenes / 'meta.json').read_text())['statistics']['train']
    masks = np.stack([np.array(Image.open(path)) for path in sorted((scenes / 'train/masks').iterdir())])
    assert statistics['stroke_percent'] == pytest.approx(100 * (masks > 0).mean())
    assert statistics['ambiguous_percent'] == pytest.approx(100 * (masks == 255).sum() / (masks > 0).sum())
    assert 2 < statistics['ambiguous_percent'] < 15
    categories = [item['category_id'] for item in coco(scenes, 'train')['annotations']]
    assert statistics['digits'] == [categories.count(i) for i in range(1, 11)]


def test_val_digits_are_readable_by_a_classifier_of_the_training_digits(tmp_path):
    make_digit_scenes(tmp_path / 'many', **{**TINY, 'train': 1, 'val': 25})

    def normalised(mask):
        return zoom(mask.astype(float), np.divide((16, 16), mask.shape), order=1).ravel()

    train = split_digits(0)[0]
    known = [(render_digit(digit_images()[i], 28, 0, 1.0), digit) for digit in range(10) for i in train[digit][::2]]
    reader = KNeighborsClassifier(3).fit([normalised(alpha) for alpha, _ in known], [digit for _, digit in known])
    hits = []
    for item in coco(tmp_path / 'many', 'val')['annotations']:
        left, top, width, height = map(int, item['bbox'])
        mask = rle.decode(item['segmentation'])[top : top + height, left : left + width]
        hits.append(reader.predict([normalised(mask)])[0] + 1 == item['category_id'])
    assert len(hits) >= 50
    assert np.mean(hits) > 0.85


def test_a_second_call_is_up_to_date_and_writes_nothing(scenes):
    before = {path: path.stat().st_mtime_ns for path in scenes.rglob('*')}
    report = make_digit_scenes(scenes, **TINY, overwrite=True)
    assert report.seconds is None
    assert f'{scenes} is up to date.' in str(report)
    assert before == {path: path.stat().st_mtime_ns for path in scenes.rglob('*')}


def test_other_arguments_are_refused_and_named(scenes):
    before = contents(scenes)
    with pytest.raises(DataError, match=r'but got seed=0 \(asked for 5\)\. Pass --overwrite to replace them'):
        make_digit_scenes(scenes, **TINY, seed=5)
    with pytest.raises(DataError, match=r'but got grain=0\.02 \(asked for 0\.1\)\. Pass'):
        make_digit_scenes(scenes, **TINY, settings=SceneSettings(grain=0.1))
    assert contents(scenes) == before


def test_overwrite_replaces_our_files_and_keeps_foreign_ones(scenes, tmp_path):
    out = tmp_path / 'scenes'
    make_digit_scenes(out, **TINY, seed=7)
    (out / 'train' / 'images' / 'notes.txt').write_text('mine')
    make_digit_scenes(out, **{**TINY, 'train': 2}, overwrite=True)
    make_digit_scenes(tmp_path / 'fresh', **{**TINY, 'train': 2})
    assert contents(out) == {**contents(tmp_path / 'fresh'), 'train/images/notes.txt': b'mine'}


@pytest.mark.parametrize('damage', ['change', 'remove'])
def test_damage_is_found_and_overwrite_repairs_it(scenes, tmp_path, damage):
    out = tmp_path / 'scenes'
    make_digit_scenes(out, **TINY)
    victim = out / 'val' / 'masks' / '000001.png'
    if damage == 'change':
        victim.write_bytes(victim.read_bytes() + b'x')
    else:
        victim.unlink()
    with pytest.raises(DataError, match=r'to have the sha256 in its meta.json but got missing or changed files'):
        make_digit_scenes(out, **TINY)
    make_digit_scenes(out, **TINY, overwrite=True)
    assert contents(out) == contents(scenes)


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('meta', [None, '{', '{"arguments": {}}', '[]'])
def test_a_foreign_folder_is_never_touched(tmp_path, overwrite, meta):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'photo.png').write_bytes(b'photo')
    if meta is not None:
        (tmp_path / 'meta.json').write_text(meta)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r'without a valid meta\.json\. Choose another folder'):
        make_digit_scenes(tmp_path, **TINY, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / 'empty').mkdir()
    make_digit_scenes(tmp_path / 'empty', **{**TINY, 'train': 1, 'val': 1})
    assert (tmp_path / 'empty' / 'meta.json').exists()


def test_a_file_in_the_way_and_a_parent_that_cannot_be_made_are_errors(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(DataError, match=r'file to be new, empty or made by make_digit_scenes'):
        make_digit_scenes(tmp_path / 'file', **TINY)
    with pytest.raises(DataError, match=r'Expected a folder that can be written at .*scenes but got: .*file'):
        make_digit_scenes(tmp_path / 'file' / 'deeper' / 'scenes', **TINY)


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    draw, calls = digit_scenes.draw_scene, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(digit_scenes, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(tmp_path / 'scenes', **TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('last', ['train.json', '000005.png', 'meta.json'])
def test_an_interrupted_overwrite_is_not_taken_for_complete_and_leaves_no_rest(tmp_path, monkeypatch, last):
    out, few = tmp_path / 'scenes', {**TINY, 'train': 2, 'val': 1}
    make_digit_scenes(out, **few)
    replace = Path.replace

    def interrupted(self, target):
        if self.name == last:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(out, **TINY, overwrite=True)
    monkeypatch.undo()
    for arguments in (few, TINY):
        with pytest.raises(DataError, match='Pass --overwrite'):
            make_digit_scenes(out, **arguments)
    make_digit_scenes(out, **few, overwrite=True)
    make_digit_scenes(tmp_path / 'fresh', **few)
    assert contents(out) == contents(tmp_path / 'fresh')


def test_a_foreign_file_with_the_name_of_a_new_scene_stays(tmp_path):
    out = tmp_path / 'scenes'
    make_digit_scenes(out, **{**TINY, 'train': 1, 'val': 1})
    (out / 'train' / 'images' / '000003.png').write_bytes(b'photo')
    before = contents(out)
    with pytest.raises(DataError, match=r'but got 1 in .*, first train/images/000003\.png\. Move them away'):
        make_digit_scenes(out, **TINY, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize(
    ('name', 'value', 'floor'), [('train', 0, 1), ('val', -1, 1), ('size', 16, 32), ('seed', -1, 0)]
)
def test_numbers_below_their_floor_are_refused(tmp_path, name, value, floor):
    with pytest.raises(ConfigError, match=rf'Expected {name} of at least {floor} but got {value}\.'):
        make_digit_scenes(tmp_path / 'scenes', **{**TINY, name: value})


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)


def test_tool_draws_and_reports(tmp_path):
    out = tmp_path / 'scenes'
    size = ('--train', '2', '--val', '1', '--size', '96', '--digit-size', '20', '30', '--digits', '3', '3')
    done = run_tool(str(out), *size)
    assert done.returncode == 0, done.stderr
    assert 'train: 2 scenes, 6 digits (0 to ' in done.stdout
    wanted = SceneSettings(digits=(3, 3), digit_size=(20, 30))
    again = make_digit_scenes(out, train=2, val=1, size=96, settings=wanted)
    assert again.seconds is None


def test_tool_prints_a_users_mistake_without_a_traceback(tmp_path):
    (tmp_path / 'photo.png').write_bytes(b'photo')
    done = run_tool(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith('error: Expected ')
    assert 'Traceback' not in done.stderr
