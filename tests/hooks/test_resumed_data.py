"""A resumed run goes on with the next batch and the random numbers of that moment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from kdplugin.distill.rng import rng_state
from kdplugin.hooks.resumed_data import (
    RestOfEpoch,
    RestoringIterator,
    continue_data,
    gathers_gradients,
    resume_within_epoch,
)


class Noisy(Dataset[tuple[int, float]]):
    """Eight items that draw a random number when they are loaded."""

    loaded: list[int]

    def __init__(self) -> None:
        self.loaded = []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, float]:
        self.loaded.append(index)
        return index, torch.rand(()).item()


def values(batches: Any) -> list[Any]:
    return [(items.tolist(), noise.tolist()) for items, noise in batches]


def test_the_rest_of_an_epoch_is_that_of_an_epoch_without_a_stop() -> None:
    torch.manual_seed(0)
    whole, states = [], []
    for batch in DataLoader(Noisy(), batch_size=2):
        whole.append(batch)
        states.append(rng_state())
    data = Noisy()
    loop = SimpleNamespace(dataloader=DataLoader(data, batch_size=2), epoch=3, run_iter=None)
    resume_within_epoch(loop, 2, states[1])
    torch.manual_seed(99)
    assert values(loop.dataloader) == values(whole[2:])
    assert data.loaded == [4, 5, 6, 7]
    assert len(loop.dataloader) == len(values(loop.dataloader)) == 4


def test_workers_go_on_with_the_next_batch() -> None:
    loop = SimpleNamespace(dataloader=DataLoader(Noisy(), batch_size=2, num_workers=1), epoch=0, run_iter=None)
    resume_within_epoch(loop, 3, rng_state())
    assert [items.tolist() for items, _ in loop.dataloader] == [[6, 7]]
    assert [items.tolist() for items, _ in loop.dataloader] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_batches_are_counted_from_where_they_go_on_in_this_epoch_alone() -> None:
    seen: list[int] = []
    loop = SimpleNamespace(
        dataloader=DataLoader(Noisy(), batch_size=2), epoch=3, run_iter=lambda index, batch: seen.append(index)
    )
    resume_within_epoch(loop, 2, rng_state())
    for epoch in (3, 4):
        loop.epoch = epoch
        for index, batch in enumerate(loop.dataloader):
            loop.run_iter(index, batch)
    assert seen == [2, 3, 0, 1, 2, 3]


def test_it_still_has_the_settings_of_the_sampler() -> None:
    loader = DataLoader(Noisy(), batch_size=2)
    rest = RestOfEpoch(loader.batch_sampler, 1, rng_state())
    assert rest.batch_size == 2
    assert len(rest) == 4


def test_another_length_of_the_epoch_begins_it_anew_and_says_so() -> None:
    said: list[str] = []
    loader = DataLoader(Noisy(), batch_size=2)
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader), logger=SimpleNamespace(warning=said.append)
    )  # fmt: skip
    continue_data(runner, 2, 16)  # type: ignore[arg-type]
    assert said == [
        'Expected epochs of 16 batches, as the checkpoint has seen, but got 4. The epoch begins anew. Resume with the '
        'batch size and the number of processes that wrote the checkpoint.'
    ]
    assert len(values(loader)) == 4


def test_generators_are_put_back_before_the_first_new_batch() -> None:
    torch.manual_seed(0)
    state = rng_state()
    expected = torch.rand(2).tolist()

    def batches() -> Any:
        while True:
            yield torch.rand(()).item()

    torch.manual_seed(5)
    restored = RestoringIterator(batches(), 3, state)
    drawn = [next(restored) for _ in range(5)]
    assert drawn[3:] == expected


@pytest.mark.parametrize(
    ('counts', 'done', 'gathers'), [(1, 3, False), (2, 3, True), (2, 4, False), (4, 10, False), (4, 9, True)]
)
def test_gradients_are_gathered_between_steps_of_the_optimizer(counts: int, done: int, gathers: bool) -> None:
    """The last iteration of a run steps in any case."""
    wrapper = SimpleNamespace(_accumulative_counts=counts)
    runner = SimpleNamespace(optim_wrapper=wrapper, iter=done - 1, max_iters=10)
    assert gathers_gradients(runner) is gathers  # type: ignore[arg-type]
