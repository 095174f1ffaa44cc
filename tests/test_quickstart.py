from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kdplugin import quickstart
from kdplugin.errors import ConfigError
from kdplugin.quickstart import Part, best_score, run_part

CONFIG = """
randomness = dict(seed=0)
model = dict(type='A')
"""
KD_CONFIG = """
_base_ = ['./baseline_digits.py']
model = dict(_delete_=True, type='kdplugin.Distiller', student=_base_.model, teacher=dict(checkpoint='teacher.pth'))
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two configs in an empty place, and a list of the parts that were trained, in place of training them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, 'CONFIGS', tmp_path / 'configs')
    quickstart.CONFIGS.mkdir()
    (quickstart.CONFIGS / 'baseline_digits.py').write_text(CONFIG)
    (quickstart.CONFIGS / 'kd_digits.py').write_text(KD_CONFIG)
    Path('teacher.pth').write_bytes(b'first')
    done: list[str] = []

    def train(part: Part) -> None:
        done.append(part.work_dir.name)
        (part.work_dir / 'weights').write_text('trained')

    monkeypatch.setattr(quickstart, '_train', train)
    return done


def test_a_finished_part_is_not_trained_again(trained: list[str]) -> None:
    assert run_part(Part('baseline_digits'), 'data')
    assert not run_part(Part('baseline_digits'), 'data')
    assert trained == ['baseline_digits']


def test_seeds_have_work_dirs_of_their_own(trained: list[str]) -> None:
    for seed in (0, 1, 2):
        run_part(Part('baseline_digits', seed), 'data')
    assert trained == ['baseline_digits', 'baseline_digits_seed1', 'baseline_digits_seed2']


def test_other_data_trains_again_and_sets_the_old_run_aside(trained: list[str]) -> None:
    for data in ('first', 'second', 'third'):
        run_part(Part('baseline_digits'), data)
    assert trained == ['baseline_digits'] * 3
    old = sorted(path.name for path in Path('work_dirs').iterdir())
    assert old == ['baseline_digits', 'baseline_digits.previous1', 'baseline_digits.previous2']
    assert Path('work_dirs/baseline_digits.previous1/weights').read_text() == 'trained'


def test_another_config_trains_again(trained: list[str]) -> None:
    run_part(Part('baseline_digits'), 'data')
    (quickstart.CONFIGS / 'baseline_digits.py').write_text(CONFIG.replace("'A'", "'B'"))
    run_part(Part('baseline_digits'), 'data')
    assert len(trained) == 2


def test_another_teacher_trains_the_student_again(trained: list[str]) -> None:
    run_part(Part('kd_digits'), 'data')
    Path('teacher.pth').write_bytes(b'second')
    run_part(Part('kd_digits'), 'data')
    assert trained == ['kd_digits', 'kd_digits']


def test_an_interrupted_part_is_trained_on_in_its_folder(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(part: Part) -> None:
        (part.work_dir / 'half').touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quickstart, '_train', stop)
        with pytest.raises(KeyboardInterrupt):
            run_part(Part('baseline_digits'), 'data')
    run_part(Part('baseline_digits'), 'data')
    assert (Path('work_dirs/baseline_digits') / 'half').exists()
    state = json.loads((Path('work_dirs/baseline_digits') / quickstart.STATE).read_text())
    assert state['finished']


def test_a_training_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, 'TRAIN_TOOL', tmp_path / 'no_such_tool.py')
    with pytest.raises(ConfigError, match='Expected baseline_digits to train but it stopped with exit code 2'):
        quickstart._train(Part('baseline_digits'))


def test_data_and_runs_are_below_the_current_folder_and_configs_and_tools_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr('subprocess.run', run)
    quickstart._train(Part('kd_digits'))
    _, tool, config, flag, folder, *_ = commands[0]
    assert Path(tool).is_file()
    assert Path(config).is_file()
    assert (flag, folder) == ('--work-dir', 'work_dirs/kd_digits')
    assert not quickstart.DATA.is_absolute()
    assert not quickstart.REPORT.is_absolute()


def test_the_score_of_a_run_is_its_best_validation(tmp_path: Path) -> None:
    logs = tmp_path / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    lines = [{'loss': 1.0, 'step': 50, 'iter': 50}]
    lines += [{'mIoU': score, 'step': step} for step, score in ((100, 40.0), (200, 50.5), (300, 48.0))]
    (logs / 'scalars.json').write_text('\n'.join(json.dumps(line) for line in lines))
    (logs / 'config.py').write_text("default_hooks = dict(checkpoint=dict(save_best='mIoU'))\n")
    assert best_score(tmp_path) == 50.5


def test_minutes_of_reused_runs_are_told_apart(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline of seed 0 was trained before, for 8 minutes; the other runs take two minutes each."""
    (quickstart.CONFIGS / 'teacher_digits.py').write_text(CONFIG)
    monkeypatch.setattr(quickstart, 'make_data', lambda: {'sha256': 'data'})
    run_part(Part('baseline_digits'), 'data')
    monkeypatch.setattr(
        quickstart, 'logged_seconds', lambda folder: 480.0 if folder.name == 'baseline_digits' else 120.0
    )
    monkeypatch.setattr(quickstart, 'best_score', lambda folder: 50.0 if 'kd' in folder.name else 40.5)
    result = quickstart.run_seeds([0, 1])
    assert result['reused'] == {'baseline_digits': 8.0}
    assert result['minutes'] == 2.0 * 4
    assert result['seeds'] == [{'seed': seed, 'baseline': 40.5, 'kd': 50.0} for seed in (0, 1)]
    assert result['mean_gain'] == 9.5
    assert trained == ['baseline_digits', 'teacher_digits', 'kd_digits', 'baseline_digits_seed1', 'kd_digits_seed1']


def test_the_three_configs_differ_only_as_they_say() -> None:
    from mmengine.config import Config

    root = Path(__file__).parents[1] / 'configs' / 'quickstart'
    baseline, kd = (Config.fromfile(root / f'{name}_digits.py').to_dict() for name in ('baseline', 'kd'))
    assert kd.pop('model')['student'] == baseline.pop('model')
    kd.pop('digits')
    assert kd == baseline
