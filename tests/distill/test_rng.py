"""The state of the random number generators can be saved, put back and kept."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from kdplugin.distill.rng import preserved_rng, rng_state, set_rng_state
from kdplugin.weights.reading.io import read_checkpoint


def draw() -> list[float]:
    """Draw from every generator, an odd number of normal values so that a spare one is left over."""
    values = [random.random(), random.gauss(0, 1), random.randrange(100)]  # noqa: S311
    values += [np.random.rand(), np.random.randn(), np.random.randint(100)]  # noqa: NPY002
    return [*values, *torch.rand(2).tolist(), *torch.randn(3).tolist(), int(torch.randint(100, (1,)))]


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    draw()


def test_a_state_that_is_put_back_gives_the_same_numbers() -> None:
    state = rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first


def test_a_state_survives_safe_saving_and_loading() -> None:
    stream = io.BytesIO()
    torch.save({'rng': rng_state()}, stream)
    first = draw()
    stream.seek(0)
    set_rng_state(read_checkpoint(stream)['rng'])
    assert draw() == first


def test_a_state_does_not_change_with_later_draws() -> None:
    state = rng_state()
    first = draw()
    draw()
    set_rng_state(state)
    assert draw() == first


def test_preserved_rng_leaves_every_stream_as_it_was() -> None:
    state = rng_state()
    expected = draw()
    set_rng_state(state)
    with preserved_rng():
        draw()
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
    assert draw() == expected


def test_preserved_rng_also_after_an_exception() -> None:
    state = rng_state()
    expected = draw()
    set_rng_state(state)

    def fail() -> None:
        with preserved_rng():
            draw()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert draw() == expected
