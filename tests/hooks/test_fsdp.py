"""Sharded over two processes on CPUs, a student learns as under DDP, and its checkpoint is a plain student."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor
from engine_runs import run_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import distributed, multiprocessing, nn

from kdplugin import launch
from kdplugin.distill.distiller import adapters_of, distillation_of
from kdplugin.hooks.fsdp import average_gradient
from kdplugin.hooks.model_of import is_sharded, model_of
from kdplugin.weights.reading.io import hash_tensors, read_checkpoint
from kdplugin.weights.reading.seal import check_seal


@HOOKS.register_module()
class NoteShards(Hook):
    """Write what one process saw to a file."""

    def before_train(self, runner: Runner) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append({name: float(value) for name, value in outputs.items() if 'time' not in name})

    def after_train(self, runner: Runner) -> None:
        model = model_of(runner)
        distillation = distillation_of(model)
        note = dict(
            losses=self.losses, sharded=is_sharded(runner),
            own=sum(value.numel() for name, value in model.named_parameters() if '_kd' not in name),
            teacher=sum(value.numel() for value in distillation.teacher.module.parameters()),
            adapters=hash_tensors(adapters_of(model).state_dict()),
        )  # fmt: skip
        Path(runner.work_dir, f'rank{runner.rank}.json').write_text(json.dumps(note))


def config(shared: Path, work_dir: Path, sharded: bool) -> Config:
    model = distilled(shared, feature_and_logit_pairs(), segmentor(dropout=0.0))
    one = run_config(shared, work_dir, model, iters=4, save_every=2, hooks=(dict(type='mmengine.NoteShards'),))
    one.default_hooks.checkpoint.max_keep_ckpts = -1
    one.env_cfg.dist_cfg = dict(backend='gloo')
    if sharded:
        one.runner_type = 'FlexibleRunner'
        one.strategy = dict(type='kdplugin.FSDPStrategy')
    return one


def process(rank: int, shared: Path, folder: Path, port: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    torch.set_num_threads(1)
    runs = [('ddp', False, None), ('fsdp', True, None), ('again', True, str(folder / 'fsdp/iter_2.pth'))]
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True)):
        for name, sharded, resume in runs:
            launch.train(launch.prepare(config(shared, folder / name, sharded), resume=resume, launcher='pytorch'))
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('fsdp')
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        port = str(one.getsockname()[1])
    multiprocessing.start_processes(process, (shared, folder, port), nprocs=2, start_method='fork')
    return folder


def notes(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / name / f'rank{rank}.json').read_text()) for rank in range(2)]


def test_the_student_is_sharded_and_the_teacher_is_not(folder: Path) -> None:
    ddp, fsdp = notes(folder, 'ddp'), notes(folder, 'fsdp')
    assert [note['sharded'] for note in (*ddp, *fsdp)] == [False, False, True, True]
    whole = ddp[0]['own']
    assert 0.99 * whole < sum(note['own'] for note in fsdp) < 1.01 * whole
    assert {note['teacher'] for note in (*ddp, *fsdp)} == {ddp[0]['teacher']}


def test_losses_are_those_of_ddp(folder: Path) -> None:
    for one, other in zip(notes(folder, 'ddp'), notes(folder, 'fsdp'), strict=True):
        assert len(one['losses']) == 4
        for step, expected in zip(other['losses'], one['losses'], strict=True):
            assert step == pytest.approx(expected, rel=1e-4, abs=1e-4)
            assert step['loss_kd_feature'] > 0


def test_adapters_are_the_same_on_both(folder: Path) -> None:
    first, second = notes(folder, 'fsdp')
    assert first['adapters'] == second['adapters']


def test_a_checkpoint_is_one_whole_plain_student(folder: Path) -> None:
    assert check_seal(folder / 'fsdp/iter_4.pth')
    sharded, plain = (read_checkpoint(folder / name / 'iter_4.pth') for name in ('fsdp', 'ddp'))
    build(segmentor()).load_state_dict(sharded['state_dict'], strict=True)
    assert sharded['kdplugin']['adapters'].keys() == plain['kdplugin']['adapters'].keys()
    for name, value in plain['state_dict'].items():
        torch.testing.assert_close(sharded['state_dict'][name], value, rtol=1e-3, atol=1e-4)


def test_it_resumes_as_if_never_stopped(folder: Path) -> None:
    for whole, again in zip(notes(folder, 'fsdp'), notes(folder, 'again'), strict=True):
        assert again['losses'] == whole['losses'][2:]
        assert again['adapters'] == whole['adapters']


def test_a_gradient_becomes_the_mean(tmp_path: Path) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        layer = nn.Linear(2, 1)
        average_gradient(layer.weight)
        layer.weight.register_post_accumulate_grad_hook(average_gradient)
        layer(torch.ones(1, 2)).sum().backward()
        assert torch.equal(layer.weight.grad, torch.ones(1, 2))
    finally:
        distributed.destroy_process_group()
