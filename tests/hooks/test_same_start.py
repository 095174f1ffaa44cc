"""Processes that would begin with other weights or teachers do not begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs
from torch import distributed, multiprocessing, nn

from kdplugin.errors import CheckpointError
from kdplugin.hooks import same_start
from kdplugin.hooks.same_start import check_same_start, start_hashes
from kdplugin.weights.reading.io import hash_file


def test_teachers_weights_and_adapters_are_told_apart(shared: Path) -> None:
    model = build(distilled(shared, feature_and_logit_pairs()))
    hashes = start_hashes(model)
    assert set(hashes) == {'teacher teacher', 'student', 'student adapters'}
    assert hashes['teacher teacher'] == hash_file(shared / 'segmentor.pth')
    with torch.no_grad():
        next(iter(model._kd.parameters())).add_(1)
    changed = start_hashes(model)
    assert [part for part in hashes if changed[part] != hashes[part]] == ['student adapters']
    assert set(start_hashes(model, sharded=True)) == {'teacher teacher'}
    assert set(start_hashes(nn.Linear(2, 2))) == {'student'}


@pytest.mark.parametrize(
    ('part', 'cure'),
    [
        ('teacher big', 'Copy one teacher checkpoint to every machine'),
        ('student adapters', 'Start every process with the same files and the same settings'),
    ],
)
def test_what_differs_and_where_is_said(monkeypatch: pytest.MonkeyPatch, part: str, cure: str) -> None:
    everyone = [{part: 'a', 'student': 's'}, {part: 'b', 'student': 's'}, {part: 'a', 'student': 's'}]
    monkeypatch.setattr(same_start, 'get_world_size', lambda: 3)
    monkeypatch.setattr(same_start, 'all_gather_object', lambda mine: everyone)
    message = rf'all 3 processes to begin with the same {part} but those of rank \[1\] differ from rank 0\. {cure}'
    with pytest.raises(CheckpointError, match=message):
        check_same_start(nn.Linear(2, 2))


def test_one_process_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_start, 'start_hashes', lambda *_: pytest.fail('asked'))
    check_same_start(nn.Linear(2, 2))


def process(rank: int, folder: Path) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    said: list[Any] = []
    for seed in (0, rank):
        torch.manual_seed(seed)
        try:
            check_same_start(nn.Linear(2, 2))
            said.append(None)
        except CheckpointError as error:
            said.append(str(error))
    torch.save(said, folder / f'rank{rank}.pt')
    distributed.destroy_process_group()


def test_two_processes_find_it_out_together(tmp_path: Path) -> None:
    multiprocessing.start_processes(process, (tmp_path,), nprocs=2, start_method='fork')
    for rank in range(2):
        same, other = torch.load(tmp_path / f'rank{rank}.pt')
        assert same is None
        assert 'same student but those of rank [1] differ from rank 0' in other
