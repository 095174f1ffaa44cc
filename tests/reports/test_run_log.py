from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from synthetic_runs import (
    class_values,
    make_run,
    recipe,
    save_checkpoint,
    text_log,
    train_line,
    val_line,
    write_segment,
)
from torch import Tensor, nn

from kdplugin.errors import DataError
from kdplugin.reports.run_log import logged_seconds, read_run


class Line(BaseModel):
    """y = w x, with a loss that falls."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Any:
        out = self.line(inputs)
        return {'loss': out.square().mean(), 'kd_a_raw': out.detach().mean()} if mode == 'loss' else [out]


class Rising(BaseMetric):
    """A metric that rises by one with each validation."""

    calls = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        Rising.calls += 1
        return {'aAcc': 1.0, 'mIoU': float(Rising.calls)}


def train(work_dir: Path, by_epoch: bool) -> None:
    """Let mmengine itself write a work dir: 6 iterations in 3 epochs, 3 validations."""
    loader = dict(
        batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='default_collate')
    )
    loop = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=6, val_interval=2)
    data = [{'inputs': torch.ones(1)} for _ in range(4)]
    hooks = dict(
        logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=by_epoch),
        checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=10, save_best='mIoU', rule='greater'),
    )
    config = Config(dict(default_hooks=hooks, log_processor=dict(by_epoch=by_epoch)))
    Rising.calls = 0
    runner = Runner(
        Line(),
        str(work_dir),
        train_dataloader=dict(dataset=data, **loader),
        val_dataloader=dict(dataset=data, **loader),
        train_cfg=loop,
        val_cfg=dict(),
        val_evaluator=Evaluator(Rising()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=hooks,
        log_processor=dict(by_epoch=by_epoch),
        log_level='ERROR',
        cfg=config,
        experiment_name=f'run-log-{by_epoch}-{work_dir.name}',
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend')],
            name=f'run-log-{by_epoch}-{work_dir.name}',
        ),
    )
    runner.train()


@pytest.mark.parametrize('by_epoch', [False, True])
def test_what_mmengine_writes_is_read(tmp_path: Path, by_epoch: bool) -> None:
    train(tmp_path, by_epoch)
    run = read_run(tmp_path)
    assert run.by_epoch is by_epoch
    assert run.primary == 'mIoU'
    assert run.series('loss')[0] == [1, 2, 3, 4, 5, 6]
    assert [value.step for value in run.validations] == ([1, 2, 3] if by_epoch else [2, 4, 6])
    assert [value.metrics for value in run.validations] == [{'aAcc': 1.0, 'mIoU': float(n)} for n in (1, 2, 3)]
    best = run.select('best')
    assert best.metrics['mIoU'] == 3.0
    checkpoint = run.checkpoint(best.step)
    assert checkpoint is not None
    assert checkpoint.name == ('best_mIoU_epoch_3.pth' if by_epoch else 'best_mIoU_iter_6.pth')
    assert 0 < (run.seconds_per_iteration() or 0) < 5
    assert {'kd_a_raw', 'loss', 'time'} <= set(run.train_keys())


def test_best_and_last(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, [40.0, 52.0, 52.0, 51.0]))
    assert run.select('best').step == 200
    assert run.select('last').step == 400
    assert run.select('best').per_class['zero'] == class_values(52.0)[1]


def test_a_validation_that_gave_nan_is_never_the_best(tmp_path: Path) -> None:
    lines = [train_line(10), *[val_line(10 * n, value) for n, value in enumerate([float('nan'), 3.0, float('nan')], 1)]]
    write_segment(tmp_path, '1', lines, recipe())
    assert read_run(tmp_path).select('best').step == 20


def test_less_is_better_where_the_checkpoint_rule_says_so(tmp_path: Path) -> None:
    hooks = dict(recipe()['default_hooks'], checkpoint=dict(save_best='aAcc', rule='less'))
    lines = [train_line(10), {**val_line(10, 40.0), 'aAcc': 3.0}, {**val_line(20, 40.0), 'aAcc': 2.0}]
    write_segment(tmp_path, '1', lines, recipe(default_hooks=hooks))
    run = read_run(tmp_path)
    assert (run.primary, run.greater_is_better) == ('aAcc', False)
    assert run.select('best').step == 20


def test_a_resumed_process_replaces_what_it_trained_again(tmp_path: Path) -> None:
    before = [*[train_line(step) for step in (10, 20, 30, 40)], val_line(20, 40.0), val_line(40, 99.0)]
    write_segment(tmp_path, '20250101', before, recipe(), text_log([40.0, 99.0]))
    after = [train_line(30, kd=True), train_line(35, kd=True), val_line(35, 45.0)]
    write_segment(tmp_path, '20250102', after, recipe(), text_log([45.0]))
    run = read_run(tmp_path)
    assert run.series('step')[0] == [10, 20, 30, 35]
    assert run.series('kd_low_raw')[0] == [30, 35]
    assert [(value.step, value.metrics['mIoU']) for value in run.validations] == [(20, 40.0), (35, 45.0)]
    assert [value.per_class['two'] for value in run.validations] == [40.0, 45.0]


def test_epochs_are_replaced_by_epoch(tmp_path: Path) -> None:
    config = recipe(default_hooks=dict(logger=dict(type='LoggerHook')))
    write_segment(
        tmp_path, '1', [train_line(10), val_line(1, 40.0), train_line(20, epoch=2), val_line(2, 50.0)], config
    )
    write_segment(tmp_path, '2', [train_line(15, epoch=2), val_line(2, 60.0)], config)
    run = read_run(tmp_path)
    assert run.series('step')[0] == [10, 15]
    assert [(value.step, value.metrics['mIoU']) for value in run.validations] == [(1, 40.0), (2, 60.0)]


def test_a_validation_made_up_for_after_a_kill_and_a_test_run_beside_the_training(tmp_path: Path) -> None:
    write_segment(tmp_path, '1', [train_line(10), val_line(10, 40.0), train_line(20)], recipe())
    write_segment(tmp_path, '2', [val_line(20, 50.0)], recipe())
    write_segment(tmp_path, '3', [val_line(0, 99.0)], recipe())
    run = read_run(tmp_path)
    assert [value.step for value in run.validations] == [10, 20]
    assert len(run.train) == 2


def test_a_cut_off_last_line_is_noted_and_skipped(tmp_path: Path) -> None:
    folder = write_segment(tmp_path, '1', [train_line(10), val_line(10, 40.0)], recipe())
    with open(folder / 'vis_data' / 'scalars.json', 'a') as file:
        file.write('{"lr": 0.1, "loss"')
    run = read_run(tmp_path)
    assert run.notes == ('the last line of 1/vis_data/scalars.json is cut off',)
    assert len(run.train) == 1


@pytest.mark.parametrize('damage', ['{"lr": 0.1, "loss"', '[1, 2]', '{"loss": 1.0}', '{"step": null}'])
def test_damage_elsewhere_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = write_segment(tmp_path, '1', [], recipe())
    text = '\n'.join([damage, json.dumps(train_line(10)), json.dumps(val_line(10, 40.0))])
    (folder / 'vis_data' / 'scalars.json').write_text(text)
    with pytest.raises(DataError, match=r'a JSON object with a step on line 1 of .*scalars\.json but got'):
        read_run(tmp_path)


def test_coco_classes_come_from_the_scalars_and_are_no_metrics(tmp_path: Path) -> None:
    line = {
        'coco/zero_precision': 0.3,
        'coco/one_precision': 0.5,
        'coco/bbox_mAP': 0.4,
        'time': 1.0,
        'step': 10,
    }
    write_segment(
        tmp_path,
        '1',
        [train_line(10), line],
        recipe(default_hooks=dict(logger=dict(log_metric_by_epoch=False))),
    )
    run = read_run(tmp_path)
    assert run.primary == 'coco/bbox_mAP'
    assert run.validations[0].metrics == {'coco/bbox_mAP': 0.4}
    assert run.validations[0].per_class == {'zero': 0.3, 'one': 0.5}


def test_the_config_of_the_newest_process_counts_not_the_one_in_the_root(tmp_path: Path) -> None:
    write_segment(tmp_path, '1', [train_line(10), val_line(10, 40.0)], recipe(randomness=dict(seed=1)))
    write_segment(tmp_path, '2', [train_line(20)], recipe(randomness=dict(seed=2)))
    Config(recipe(randomness=dict(seed=3))).dump(tmp_path / 'config.py')
    assert read_run(tmp_path).config.randomness.seed == 2


def test_the_best_file_is_taken_before_the_periodic_one(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, [40.0]))
    assert run.checkpoint(100) == tmp_path / 'best_mIoU_iter_100.pth'
    (tmp_path / 'best_mIoU_iter_100.pth').unlink()
    assert run.checkpoint(100) == tmp_path / 'iter_100.pth'
    save_checkpoint(tmp_path / 'epoch_200.pth')
    assert run.checkpoint(200) is None


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'Expected a work dir but .*nowhere is not a folder'):
        read_run(tmp_path / 'nowhere')


def test_no_scalars(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'Expected <timestamp>/vis_data/scalars\.json in .* but found none'):
        read_run(tmp_path)


@pytest.mark.parametrize('lines', [[train_line(10)], [val_line(10, 40.0)]])
def test_no_validation_yet(tmp_path: Path, lines: list[dict[str, float]]) -> None:
    write_segment(tmp_path, '1', lines, recipe())
    with pytest.raises(DataError, match=r'at least one validation in .* Let the run reach its first validation'):
        read_run(tmp_path)


def test_no_config_or_two(tmp_path: Path) -> None:
    folder = write_segment(tmp_path, '1', [train_line(10), val_line(10, 40.0)], recipe())
    (folder / 'vis_data' / 'config.py').unlink()
    with pytest.raises(DataError, match=r'Expected one dumped config in .* but found 0'):
        read_run(tmp_path)
    Config(recipe()).dump(tmp_path / 'a.py')
    assert read_run(tmp_path).config.train_cfg.max_iters == 400
    Config(recipe()).dump(tmp_path / 'b.py')
    with pytest.raises(DataError, match='but found 2'):
        read_run(tmp_path)


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_segment(tmp_path, '1', [train_line(10), val_line(10, 40.0)], recipe())
    (folder / 'vis_data' / 'config.py').write_text('model = dict(')
    with pytest.raises(DataError, match=r'Expected a config in .*config\.py but reading it failed \(SyntaxError'):
        read_run(tmp_path)


def test_seconds_are_those_of_all_training_processes(tmp_path: Path) -> None:
    """A killed process counts, a test run in the same folder does not; lines without a time stamp do no harm."""
    logs = {
        'killed': '2026/01/31 23:59:50 - mmengine - INFO - Iter(train) [1/9]\nlr = 0.1\n2026/02/01 00:00:20 - mm\n',
        'resumed': '2026/02/01 08:00:00 - mmengine - INFO - Epoch(train) [2][1/9]\n2026/02/01 08:01:00 - mmengine\n',
        'tested': '2026/02/01 09:00:00 - mmengine - INFO - Iter(test) [1/9]\n2026/02/01 09:30:00 - mmengine\n',
        'empty': '',
    }
    for name, text in logs.items():
        write_segment(tmp_path, name, [], recipe(), text)
    assert logged_seconds(tmp_path) == 30 + 60


def test_seconds_are_read_from_what_mmengine_logs(tmp_path: Path) -> None:
    (tmp_path / 'run').mkdir()
    logger = MMLogger('seconds', log_file=str(tmp_path / 'run' / 'run.log'), log_level='INFO')
    logger.info('Iter(train) [1/2]')
    time.sleep(1.1)
    logger.info('Iter(train) [2/2]')
    assert logged_seconds(tmp_path) in (1, 2)
