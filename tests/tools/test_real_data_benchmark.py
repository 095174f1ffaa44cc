"""The benchmark on real data: what it reads, what baseline and KD share, its arithmetic, resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from kdplugin.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'real_data'
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import real_data  # noqa: E402
from real_data import Run, fingerprint, measure, plan, run_all, summary  # noqa: E402
from real_data_files import COLOURS, corners, labels_of, prepare, read_boxes  # noqa: E402


def voc(*boxes: tuple[str, int, int, int, int]) -> str:
    objects = ''.join(
        f'<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
        '</bndbox></object>'
        for name, x1, y1, x2, y2 in boxes
    )
    return f'<annotation>{objects}</annotation>'


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """One image of 384x144 in each split; its second box is empty."""
    folder = tmp_path / 'source' / 'bccd'
    for name in ('ImageSets/Main', 'JPEGImages', 'Annotations'):
        (folder / name).mkdir(parents=True)
    for split in ('train', 'val'):
        (folder / 'ImageSets' / 'Main' / f'{split}.txt').write_text(f'{split}\n')
        Image.new('RGB', (384, 144), (200, 100, 50)).save(folder / 'JPEGImages' / f'{split}.jpg')
        boxes = (('WBC', 11, 21, 111, 61), ('RBC', 5, 5, 5, 30))
        (folder / 'Annotations' / f'{split}.xml').write_text(voc(*boxes))
    return tmp_path / 'source'


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A training tile of 600x200 whose left half is building, and a validation tile that is unlabelled."""
    for tile in ('Tile 1', 'Tile 2'):
        for kind in ('images', 'masks'):
            (tmp_path / 'source' / 'dubai' / tile / kind).mkdir(parents=True)
        Image.new('RGB', (600, 200)).save(tmp_path / 'source' / 'dubai' / tile / 'images' / 'a.jpg')
        mask = np.full((200, 600, 3), 0x9B, np.uint8)
        if tile == 'Tile 2':
            mask[:, :300] = (0x3C, 0x10, 0x98)
        palette = Image.fromarray(mask).quantize(4)
        palette.save(tmp_path / 'source' / 'dubai' / tile / 'masks' / 'a.png')
    return tmp_path / 'source'


def test_boxes_are_zero_based_and_never_empty(tmp_path: Path) -> None:
    (tmp_path / 'a.xml').write_text(voc(('RBC', 1, 2, 11, 22), ('RBC', 3, 3, 3, 9), ('WBC', 3, 9, 8, 9)))
    assert read_boxes(tmp_path / 'a.xml') == [('RBC', (0.0, 1.0, 10.0, 21.0))]


def test_cells_in_the_format_of_coco(cells: Path, tmp_path: Path) -> None:
    mark = prepare('bccd', cells, tmp_path / 'out')
    content = json.loads((tmp_path / 'out' / 'train.json').read_text())
    assert content['images'] == [{'id': 0, 'file_name': 'train.png', 'width': 192, 'height': 144}]
    (box,) = content['annotations']  # half the width, the height as it was
    assert (box['bbox'], box['area'], box['category_id']) == ([5.0, 20.0, 50.0, 40.0], 2000.0, 2)
    assert [item['name'] for item in content['categories']] == list(Config.fromfile(CONFIGS / 'bccd.py').classes)
    assert Image.open(tmp_path / 'out' / 'images' / 'val.png').size == (192, 144)
    (cells / 'bccd' / 'Annotations' / 'train.xml').write_text('not read again')
    assert prepare('bccd', cells, tmp_path / 'out') == mark
    (tmp_path / 'out' / 'val.json').write_text('changed')
    assert prepare('bccd', cells, tmp_path / 'out') != mark


def test_tiles_in_the_layout_of_mmseg(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    prepare('dubai', tiles, out)
    assert sorted(path.name for path in (out / 'train' / 'images').iterdir()) == ['Tile_2_a_0.png', 'Tile_2_a_1.png']
    left, right = (np.asarray(Image.open(out / 'train' / 'masks' / f'Tile_2_a_{n}.png')) for n in (0, 1))
    assert left.shape == right.shape == (100, 256)  # of 300 columns: 0 to 255 and 44 to 299
    assert (left[:, :150] == 0).all()
    assert (left[:, 150:] == 255).all()
    assert (right[:, :106] == 0).all()
    assert (right[:, 106:] == 255).all()
    assert np.asarray(Image.open(out / 'val' / 'masks' / 'Tile_1_a_0.png')).shape == (100, 300)


@pytest.mark.parametrize('length', [100, 256, 257, 600, 1074])
def test_patches_cover_a_side(length: int) -> None:
    starts = corners(length, 256)
    covered = {place for start in starts for place in range(start, min(start + 256, length))}
    assert covered == set(range(length))
    assert starts[-1] == max(0, length - 256)
    assert len(starts) == -(-length // 256)


def test_colours_without_a_label_are_refused() -> None:
    pixels = np.array([[[0x3C, 0x10, 0x98], [0x3C, 0x10, 0x99]]], np.uint8)
    with pytest.raises(DataError, match=r"Expected colours \['000000', .* but got \['3C1099'\]\. Give a table"):
        labels_of(pixels)
    assert labels_of(pixels, {**COLOURS, 0x3C1099: 7}).tolist() == [[0, 7]]


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'Expected bccd below .* but found none\. Give the folder with --source'):
        prepare('bccd', tmp_path, tmp_path / 'out')


@pytest.mark.parametrize('data', real_data.METRICS)
def test_baseline_and_kd_differ_in_the_teacher_alone(data: str) -> None:
    baseline, kd = (Config.fromfile(CONFIGS / f'{role}_{data}.py').to_dict() for role in ('baseline', 'kd'))
    model = kd.pop('model')
    assert model['student'] == baseline.pop('model')
    assert kd == baseline
    assert model['type'] == 'kdplugin.Distiller'
    assert model['teacher']['cfg'] == str(Run(data, 'teacher').config.relative_to('.'))
    teacher = Config.fromfile(CONFIGS / f'teacher_{data}.py')
    file = Run(data, 'teacher').work_dir / f'iter_{teacher.train_cfg.max_iters}.pth'
    assert model['teacher']['checkpoint'] == str(file)
    for config in (baseline, teacher):
        iters = config['train_cfg']['max_iters']
        assert config['param_scheduler'][0]['total_steps'] == config['train_cfg']['val_interval'] == iters
        assert iters % config['default_hooks']['checkpoint']['interval'] == 0


def record(score: float) -> dict[str, Any]:
    return {'fingerprint': 'x', 'score': score, 'minutes': 1.5}


def test_gain_and_spread_are_those_of_pairs() -> None:
    scores = {('baseline', 0): 40.0, ('kd', 0): 43.0, ('baseline', 1): 50.0, ('kd', 1): 51.0, ('baseline', 2): 60.0}
    records = {Run('dubai', role, seed): record(score) for (role, seed), score in scores.items()}
    row = summary('dubai', {Run('dubai', 'teacher'): record(70.0), **records}, 'python x')
    assert (row['baseline'], row['kd'], row['seeds']) == ([40.0, 50.0], [43.0, 51.0], [0, 1])
    assert row['mean_gain'] == 2.0
    assert row['spread'] == 1.41  # (n - 1) below: sqrt((1 + 1) / 1)
    assert (row['teacher'], row['minutes']) == (70.0, 9.0)


def test_a_teacher_in_half_precision_is_held_against_the_one_in_full() -> None:
    scores = {('baseline', 0): 40.0, ('kd', 0): 43.0, ('kd_bf16', 0): 44.0, ('baseline', 1): 50.0, ('kd', 1): 51.0}
    records = {Run('dubai', role, seed): record(score) for (role, seed), score in scores.items()}
    teacher = {Run('dubai', 'teacher'): record(70.0)}
    row = summary('dubai', {**teacher, **records}, '')
    assert (row['kd_bf16'], row['bf16_mean_change'], row['kd']) == ([44.0], 1.0, [43.0, 51.0])
    assert 'kd_bf16' not in summary('dubai', teacher, '')
    full, half = (Config.fromfile(CONFIGS / f'{role}_dubai.py').to_dict() for role in ('kd', 'kd_bf16'))
    assert half['model']['teacher'].pop('precision') == 'bfloat16'
    assert half == full


def test_one_pair_has_no_spread_and_none_no_gain() -> None:
    teacher = {Run('bccd', 'teacher'): record(30.0)}
    row = summary('bccd', teacher, '')
    assert (row['mean_gain'], row['spread'], row['baseline']) == (None, None, [])
    pair = {Run('bccd', 'baseline'): record(20.0), Run('bccd', 'kd'): record(21.5)}
    assert [summary('bccd', {**teacher, **pair}, '')[key] for key in ('mean_gain', 'spread')] == [1.5, None]


def test_the_teacher_is_first_and_pairs_are_together() -> None:
    assert [(run.role, run.seed) for run in plan('bccd', [3, 4])] == [
        ('teacher', 0), ('baseline', 3), ('kd', 3), ('baseline', 4), ('kd', 4),
    ]  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Run nothing: note each command, and let mIoU be 40 and one more with each run."""
    made: list[list[str]] = []

    def call(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        made.append(command)
        return subprocess.CompletedProcess(command, 0)

    class Log:
        def select(self, rule: str) -> Any:
            assert rule == 'last'
            return type('Validation', (), {'metrics': {'mIoU': 40.0 + len(made), 'coco/bbox_mAP': 0.3}})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(real_data, 'CONFIGS', CONFIGS)
    monkeypatch.setattr(real_data.subprocess, 'run', call)
    monkeypatch.setattr(real_data, 'read_run', lambda _: Log())
    monkeypatch.setattr(real_data, 'hash_file', lambda path: str(path))
    return made


def test_finished_runs_are_kept_and_changed_ones_are_not(calls: list[list[str]], tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / 'results.json'
    run_all(['dubai'], [0, 1], tiles, out)
    (row,) = json.loads(out.read_text())['runs']
    assert (row['teacher'], row['baseline'], row['kd'], row['mean_gain']) == (41.0, [42.0, 44.0], [43.0, 45.0], 1.0)
    assert [Path(command[2]).stem for command in calls[:3]] == ['teacher_dubai', 'baseline_dubai', 'kd_dubai']
    assert calls[4][-2:] == ['--cfg-options', 'randomness.seed=1']
    run_all(['dubai'], [0, 1], tiles, out)
    assert len(calls) == 5
    other = next((tmp_path / 'work_dirs' / 'real_data' / 'data' / 'dubai' / 'val' / 'images').iterdir())
    other.write_bytes(b'other data')
    run_all(['dubai'], [0, 1], tiles, out)
    assert len(calls) == 10


def test_an_interrupted_run_goes_on(calls: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run('dubai', 'baseline')
    folder = tmp_path / run.work_dir
    folder.mkdir(parents=True)
    (folder / 'record.json').write_text(json.dumps({'fingerprint': fingerprint(run, 'data')}))
    (folder / 'kept').touch()
    monkeypatch.setattr(real_data, 'latest_complete_checkpoint', lambda _: folder / 'iter_100.pth')
    assert measure(run, 'data')['score'] == 41.0
    assert '--resume' in calls[0]
    assert (folder / 'kept').exists()


def test_a_failing_run_is_told(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 3)
    monkeypatch.setattr(real_data.subprocess, 'run', lambda *_, **__: failed)
    with pytest.raises(ConfigError, match=r'baseline_dubai\.py to train but it stopped with exit code 3\. Read .*txt'):
        measure(Run('dubai', 'baseline'), 'data')


def test_the_teacher_belongs_to_the_fingerprint_of_kd_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_data, 'CONFIGS', CONFIGS)
    marks = []
    for content in ('one', 'other'):
        monkeypatch.setattr(real_data, 'hash_file', lambda _, content=content: content)
        marks.append([fingerprint(Run('bccd', role), 'data') for role in ('baseline', 'kd')])
    assert marks[0][0] == marks[1][0]
    assert marks[0][1] != marks[1][1]
