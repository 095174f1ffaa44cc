"""Contract 6: a resumed run is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import all_tensors, distilled, feature_and_logit_pairs, segmentor
from engine_runs import Run, read_scalars, run_config, start
from mmengine.config import Config
from torch import Tensor

from kdplugin import launch
from kdplugin.errors import CheckpointError
from kdplugin.hooks.safe_checkpoint_hook import latest_complete_checkpoint
from kdplugin.weights.reading.io import hash_tensors, read_checkpoint

ROOT = Path(__file__).parents[2]


def recipe(shared: Path, work_dir: Path, kind: str) -> Config:
    """Adapters, dropout, augmentation from numpy's and Python's generators, accumulation, EMA, validation."""
    model = distilled(shared, feature_and_logit_pairs())
    settings: dict[str, Any] = dict(accumulate=2, ema=True)
    if kind == 'iterations':
        return run_config(shared, work_dir, model, iters=8, save_every=2, validate_every=4, **settings)
    return run_config(shared, work_dir, model, epochs=3, save_every=1, validate_every=1, **settings)


@pytest.fixture(scope='module')
def uninterrupted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {kind: start(recipe(shared, tmp_path_factory.mktemp(kind), kind)) for kind in ('iterations', 'epochs')}


def differences(one: Any, other: Any, path: str = '') -> list[str]:
    """Name the leaves in which two checkpoints differ by a single bit; times and paths are left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        ignored = ('time', 'experiment_name', 'mmengine_version', 'cfg', 'last_ckpt', 'best_ckpt')
        keys = [
            key for key in one.keys() | other.keys() if str(key).split('/')[-1].removeprefix('data_') not in ignored
        ]
        return [hit for key in keys for hit in differences(one.get(key), other.get(key), f'{path}/{key}')]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [hit for n, pair in enumerate(zip(one, other, strict=True)) for hit in differences(*pair, f'{path}/{n}')]
    if hasattr(one, '_log_history') and hasattr(other, '_log_history'):
        return differences(one._log_history, other._log_history, path)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, np.ndarray | np.generic):
        return [] if np.array_equal(one, other) else [path]
    return [] if one == other else [path]


def assert_same_end(run: Run, reference: Run, since: int) -> None:
    """Every later loss and metric, weights, adapters, EMA, optimizer, logs and generators are the reference's."""
    later = {step: losses for step, losses in reference.steps.items() if step >= since}
    assert run.steps == later
    logged, expected = (  # two runs that begin within one second share a log folder
        {step: line for step, line in side.scalars().items() if step > since} for side in (run, reference)
    )
    assert logged == expected
    assert run.validations == {step: line for step, line in reference.validations.items() if step in run.validations}
    assert max(run.validations) == max(reference.validations)
    assert hash_tensors(all_tensors(run.model)) == hash_tensors(all_tensors(reference.model))
    last = [read_checkpoint(latest_complete_checkpoint(side.folder) or '') for side in (run, reference)]
    assert 'ema_state_dict' in last[0]
    assert last[0]['kdplugin']['adapters']
    assert differences(*last) == []


@pytest.mark.parametrize(
    ('kind', 'stop', 'since', 'validations'),
    [
        ('iterations', ('before_train_iter', 5), 4, {8}),
        ('iterations', ('before_train_iter', 7), 6, {8}),
        ('iterations', ('before_val', 4), 4, {4, 8}),
        ('epochs', ('before_train_iter', 6), 4, {8, 12}),
        ('epochs', ('before_val', 8), 8, {8, 12}),
    ],
    ids=['after-validation', 'between-validations', 'before-validation', 'within-epoch', 'before-epoch-validation'],
)
def test_resume_equals_no_interruption(
    shared: Path, tmp_path: Path, uninterrupted: dict[str, Run], kind: str, stop: Any, since: int, validations: set[int]
) -> None:
    """``validations`` are those the resumed run makes: one that the interruption prevented is made up for."""
    died = start(recipe(shared, tmp_path, kind), stop=stop)
    reference = uninterrupted[kind]
    assert died.steps == {step: losses for step, losses in reference.steps.items() if step < stop[1]}
    resumed = start(recipe(shared, tmp_path, kind), resume='auto')
    assert set(resumed.validations) == validations
    assert_same_end(resumed, reference, since)


def test_two_runs_of_one_recipe_are_equal_and_another_seed_is_not(shared: Path, tmp_path: Path) -> None:
    """The comparison above would see a difference: another seed changes every loss."""
    runs = [
        start(run_config(shared, tmp_path / str(n), segmentor(), iters=2, randomness=dict(seed=seed)))
        for n, seed in enumerate((3, 3, 4))
    ]
    one, same, other = (read_checkpoint(run.folder / 'iter_2.pth') for run in runs)
    assert differences(one, same) == []
    assert '/state_dict/backbone.conv1.weight' in differences(one, other)
    assert any(path.startswith('/rng_states/ranks/0/torch') for path in differences(one, other))
    assert any(path.startswith('/rng_states/ranks/0/numpy') for path in differences(one, other))


def test_resume_works_without_accumulation_ema_or_validation(shared: Path, tmp_path: Path) -> None:
    def recipe(name: str) -> Config:
        return run_config(shared, tmp_path / name, segmentor(), iters=3, save_every=1)

    reference = start(recipe('whole'))
    start(recipe('cut'), stop=('before_train_iter', 2))
    resumed = start(recipe('cut'), resume='auto')
    assert resumed.steps == {2: reference.steps[2]}
    assert hash_tensors(all_tensors(resumed.model)) == hash_tensors(all_tensors(reference.model))


def test_workers_see_the_samples_in_the_same_order(shared: Path, tmp_path: Path) -> None:
    watch = [dict(type='mmengine.WatchImages')]
    whole = start(run_config(shared, tmp_path / 'whole', segmentor(), iters=4, custom_hooks=watch)).images()
    start(run_config(shared, tmp_path / 'cut', segmentor(), iters=4), stop=('before_train_iter', 3))
    config = run_config(shared, tmp_path / 'cut', segmentor(), iters=4, custom_hooks=watch)
    config.train_dataloader.num_workers = 1
    assert start(config, resume='auto').images() == whole[2:]
    assert len({name for batch in whole for name in batch}) > 4


def test_a_dynamic_validation_interval_counts_for_a_pending_validation(shared: Path, tmp_path: Path) -> None:
    """From iteration 1 on every second iteration is validated; the recipe's own interval would skip 2."""

    def recipe() -> Config:
        config = run_config(shared, tmp_path, segmentor(), iters=3, save_every=1, validate_every=100)
        config.train_cfg.dynamic_intervals = [(1, 2)]
        return config

    start(recipe(), stop=('before_val', 2))
    assert set(start(recipe(), resume='auto').validations) == {2, 3}


# killing and resuming


def test_a_run_killed_while_it_writes_goes_on_from_the_file_before(
    shared: Path, tmp_path: Path, uninterrupted: dict[str, Run]
) -> None:
    """SIGKILL, through tools/train.py, when the bytes of iter_4.pth are on the disk under a temporary name."""
    config = recipe(shared, tmp_path / 'run', 'iterations')
    config.custom_imports = dict(imports=['engine_runs'], allow_failed_imports=False)
    config.custom_hooks.append(dict(type='mmengine.KillWhileWriting', name='iter_4.pth'))
    config.dump(tmp_path / 'config.py')
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    killed = subprocess.run(
        [sys.executable, str(ROOT / 'tools/train.py'), str(tmp_path / 'config.py')],
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}, cwd=tmp_path, capture_output=True, timeout=900,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    left = sorted(file.name for file in (tmp_path / 'run').iterdir() if '.pth' in file.name)
    assert left[0].startswith('.iter_4.pth.')
    assert left[1:] == ['iter_2.pth']
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    before, reference = read_scalars(scalars), uninterrupted['iterations'].scalars()
    assert before == {step: reference[step] for step in before}
    assert {1, 2, 3} <= set(before)
    resumed = start(recipe(shared, tmp_path / 'run', 'iterations'), resume='auto')
    assert min(resumed.steps) == 2
    assert_same_end(resumed, uninterrupted['iterations'], 2)


def test_a_recipe_that_saves_elsewhere_resumes_from_there(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path / 'run', segmentor(), iters=2, save_every=1)
    config.default_hooks.checkpoint.update(out_dir=str(tmp_path / 'big-disk'), filename_tmpl='weights-{}.pth')
    start(config.copy(), stop=('before_train_iter', 1))
    assert latest_complete_checkpoint(tmp_path / 'run') == tmp_path / 'big-disk/run/weights-1.pth'
    assert set(start(config.copy(), resume='auto').steps) == {1}


def test_resume_with_nothing_there_starts_from_the_beginning_and_says_so(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(run_config(shared, tmp_path, distilled(shared, {}), iters=1), resume='auto')
    assert f'No complete checkpoint in {tmp_path}: starting from the beginning.' in capsys.readouterr().out
    assert set(run.steps) == {0}
    assert not run.runner._resume


def test_a_named_file_is_resumed_though_a_newer_one_is_there(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, segmentor(), iters=2, save_every=1)
    config.default_hooks.checkpoint.max_keep_ckpts = -1
    start(config.copy())
    assert set(start(config.copy(), resume=str(tmp_path / 'iter_1.pth')).steps) == {1}
    with pytest.raises(CheckpointError, match=r'a checkpoint to resume but gone\.pth does not exist'):
        launch.prepare(config, resume='gone.pth')


def test_a_finished_run_resumes_to_its_end(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, distilled(shared, feature_and_logit_pairs()), iters=1)
    first = start(config.copy())
    again = start(config.copy(), resume='auto')
    assert again.steps == {}
    assert hash_tensors(all_tensors(again.model)) == hash_tensors(all_tensors(first.model))


def test_a_checkpoint_of_another_number_of_processes_is_a_warning(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(shared, tmp_path, segmentor(), iters=2, save_every=1)
    start(config.copy(), stop=('before_train_iter', 1))
    checkpoint = read_checkpoint(tmp_path / 'iter_1.pth')
    checkpoint['rng_states']['ranks'] *= 2
    torch.save(checkpoint, tmp_path / 'iter_1.pth')
    said: list[str] = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda self, message, *_: said.append(message))
    assert set(start(config.copy(), resume='auto').steps) == {1}
    assert any('random states of 1 processes but the checkpoint holds 2' in message for message in said)
