"""Two processes with half a batch each do what one process does with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL, build, distilled, segmentation_batch, segmentor, stir
from torch import distributed, multiprocessing, nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.schedules import Moment
from kdplugin.hooks.cpu_ddp import CPUDistributedDataParallel
from kdplugin.weights.reading.io import hash_tensors

PAIRS = dict(
    feature=dict(tap='backbone', loss=COSINE, target_ratio=0.4, calibration_iters=2),
    logits=dict(tap='decode_head.conv_seg', loss=KL, weight=2.0, stop_after=2),
    late=dict(tap='backbone.layer4', loss=COSINE, stop_after=2),
)
STEPS = 4


def student(shared: Path) -> nn.Module:
    """Return a student whose images do not see each other: its norms rest."""
    config = distilled(shared, PAIRS, segmentor(dropout=0.0), frozen=['*bn*', '*downsample.1'])
    return stir(build(config)).train()


def steps(model: Any, part: slice) -> list[dict[str, Any]]:
    """Train on a part of each batch; return losses and what the adapters' gradients are."""
    inner = model.module if isinstance(model, CPUDistributedDataParallel) else model
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.05, momentum=0.9)
    notes = []
    for step in range(STEPS):
        distillation_of(inner).at(Moment(step, max_iters=STEPS))
        batch = segmentation_batch(seed=step)
        optimizer.zero_grad()
        losses = model(batch['inputs'][part], batch['data_samples'][part], mode='loss')
        total, logged = inner.parse_losses(losses)
        total.backward()
        optimizer.step()
        gradients = {name: value.grad.clone() for name, value in adapters_of(inner).named_parameters()}
        notes.append(dict(logged={name: float(value) for name, value in logged.items()}, gradients=gradients))
    return notes


def process(rank: int, shared: Path, folder: Path) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    wrapped = CPUDistributedDataParallel(student(shared), broadcast_buffers=False)
    assert not wrapped.find_unused_parameters
    notes = steps(wrapped, slice(rank, rank + 1))
    weights = hash_tensors(dict(wrapped.module.named_parameters()))
    torch.save(dict(notes=notes, weights=weights), folder / f'rank{rank}.pt')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.start_processes(process, (shared, folder), nprocs=2, start_method='fork')
    return [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(2)]


def test_adapters_get_the_same_gradient_in_both_processes(ranks: list[dict[str, Any]]) -> None:
    """Also those of pairs that have stopped, for which DistributedDataParallel waits."""
    first, second = ranks
    assert first['weights'] == second['weights']
    for step, (one, other) in enumerate(zip(first['notes'], second['notes'], strict=True)):
        assert len(one['gradients']) == 10
        for name, value in one['gradients'].items():
            assert torch.equal(value, other['gradients'][name])
            assert value.any() == (not name.startswith('late') or step < 2)


def test_both_processes_calibrate_to_one_weight(ranks: list[dict[str, Any]]) -> None:
    weights = [[step['logged']['kd_feature_weight'] for step in rank['notes']] for rank in ranks]
    assert weights[0] == weights[1]
    assert weights[0][0] != weights[0][1] == weights[0][2] == weights[0][3]
    raws = [rank['notes'][0]['logged']['kd_feature_raw'] for rank in ranks]
    assert raws[0] != raws[1]


def test_they_do_what_one_process_does_with_the_joined_batch(ranks: list[dict[str, Any]], shared: Path) -> None:
    joined = steps(student(shared), slice(None))
    for step, whole in enumerate(joined):
        parts = [rank['notes'][step] for rank in ranks]
        for name, value in whole['logged'].items():
            if 'acc' not in name:
                mean = sum(part['logged'][name] for part in parts) / 2
                assert mean == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)
        for name, value in whole['gradients'].items():
            torch.testing.assert_close(parts[0]['gradients'][name], value, rtol=1e-3, atol=1e-6)
