"""No checkpoint runs code on the way in, and what mmengine saves still comes through."""

from __future__ import annotations

import functools
import os
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading import io as weights_io
from kdplugin.weights.reading.io import read_checkpoint, trust_checkpoints

REFUSED = r'asks for more while loading, which could run code .*Nothing was executed.*trust_checkpoint=True'
DAMAGED = r'Expected a checkpoint but .* is damaged or not a PyTorch file \(.*\)\. Copy it again'


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


WEIGHTS = {'conv.weight': torch.arange(12.0).reshape(3, 4), 'conv.bias': torch.zeros(3)}


class Reduced:
    """Pickles as a call of ``function`` with ``args``, then ``state`` put into the result."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def bombs() -> list[Any]:
    def plain(bomb: Any) -> Any:
        return {'state_dict': WEIGHTS, 'x': bomb}

    return [
        pytest.param(plain, id='top'),
        pytest.param(lambda bomb: {'state_dict': {**WEIGHTS, 'x': bomb}}, id='among the weights'),
        pytest.param(lambda bomb: {'state_dict': WEIGHTS, 'meta': {'env': [(bomb,)]}}, id='in meta'),
        pytest.param(lambda bomb: bomb, id='instead of a dict'),
        pytest.param(lambda bomb: {bomb: 1}, id='as a key'),
        pytest.param(lambda bomb: {'x': Reduced(np._core.multiarray.scalar, np.dtype('O'), bomb)}, id='numpy scalar'),
        pytest.param(lambda bomb: {'x': np.array([bomb], dtype=object)}, id='numpy array'),
    ]


@pytest.mark.parametrize('place', bombs())
@pytest.mark.parametrize('new_format', [True, False])
def test_bombs_do_not_go_off(tmp_path: Path, bomb: Any, place: Callable[[Any], Any], new_format: bool) -> None:
    path = saved(place(bomb), tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=REFUSED):
        read_checkpoint(path)
    assert not bomb.marker.exists()
    with path.open('rb') as stream, pytest.raises(CheckpointError, match=f'the stream {REFUSED}'):
        read_checkpoint(stream)
    assert not bomb.marker.exists()


def test_a_trusted_bomb_goes_off(tmp_path: Path, bomb: Any) -> None:
    """The bombs of these tests are real."""
    path = saved({'x': bomb}, tmp_path / 'a.pth')
    assert read_checkpoint(path, trust_checkpoint=True) == {'x': 0}
    assert bomb.marker.exists()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_bombs_in_bare_pickles_do_not_go_off(tmp_path: Path, bomb: Any, protocol: int) -> None:
    path = tmp_path / 'a.pth'
    path.write_bytes(pickle.dumps({'x': bomb}, protocol))
    with pytest.raises(CheckpointError, match=REFUSED if protocol > 1 else DAMAGED):
        read_checkpoint(path)
    assert not bomb.marker.exists()


def test_torchs_own_switch_does_not_open_the_door(tmp_path: Path, bomb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(CheckpointError, match=REFUSED):
        read_checkpoint(saved({'x': bomb}, tmp_path / 'a.pth'))
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    ('function', 'args'),
    [(eval, ('1',)), (exec, ('',)), (__import__, ('os',)), (os.popen, ('true',)), (open, ('/dev/null',)), (print, ())],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_functions_are_named_and_not_called(tmp_path: Path, function: Callable[..., Any], args: tuple[str]) -> None:
    path = saved({'x': Reduced(function, *args)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'{REFUSED}') as caught:
        read_checkpoint(path)
    assert function.__name__ in str(caught.value)


def getattr_tricks() -> dict[str, Any]:
    mmengine = pytest.importorskip('mmengine')
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    mean = HistoryBuffer.mean
    return dict(
        constructor=Reduced(getattr, HistoryBuffer, '__init__'),
        globals=Reduced(getattr, mean, '__globals__'),
        subclasses=Reduced(getattr, HistoryBuffer, '__subclasses__'),
        mutable=Reduced(getattr, HistoryBuffer, '_statistics_methods'),
        register=Reduced(getattr, HistoryBuffer, 'register_statistics'),
        tensor=Reduced(getattr, torch.zeros(2), 'numpy'),
        module=Reduced(getattr, Reduced(__import__, mmengine.__name__), 'mean'),
        impostor=Reduced(getattr, Reduced(HistoryBuffer, state={'__name__': 'HistoryBuffer'}), 'mean'),
        default=Reduced(getattr, HistoryBuffer, 'no_such', 1),
        curve=Reduced(getattr, OneCycleParamScheduler, '__init__'),
    )


@pytest.mark.parametrize(
    'trick',
    [
        'constructor',
        'globals',
        'subclasses',
        'mutable',
        'register',
        'tensor',
        'module',
        'impostor',
        'default',
        'curve',
    ],
)
def test_getattr_gives_nothing_but_a_few_methods(tmp_path: Path, trick: str) -> None:
    path = saved({'x': getattr_tricks()[trick]}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'Nothing was executed|damaged'):
        read_checkpoint(path)


def test_a_history_buffer_does_not_change_how_others_count(tmp_path: Path) -> None:
    pytest.importorskip('mmengine')
    from mmengine.logging import HistoryBuffer

    state = {**HistoryBuffer([1.0, 3.0], [1, 1]).__dict__, 'statistics_methods': {'mean': HistoryBuffer.max}}
    path = saved({'x': Reduced(HistoryBuffer, state=state)}, tmp_path / 'a.pth')
    buffer = read_checkpoint(path)['x']
    assert type(buffer) is HistoryBuffer
    assert buffer.statistics('mean') == 2
    assert HistoryBuffer([5.0, 7.0], [1, 1]).statistics('mean') == 6


def test_numpy_types_cannot_be_forged(tmp_path: Path) -> None:
    """With the flags of an object array, raw bytes would be taken for pointers."""
    forged = Reduced(np.dtype, 'f8', False, True, state=(3, '<', None, None, None, -1, -1, 0b11101))
    array = Reduced(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=(1, (2,), forged, False, b'A' * 16))
    read = read_checkpoint(saved({'x': array}, tmp_path / 'a.pth'))['x']
    assert read.dtype == np.float64
    assert read.dtype.flags == 0


@pytest.mark.parametrize('value', [np.array(['a', 1], dtype=object), np.array(['text']), np.zeros(1, dtype='f4,i4')])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match=r"numpy\.dtype\('[OUV]\d+'\) is not part of a checkpoint"):
        read_checkpoint(saved({'x': value}, tmp_path / 'a.pth'))


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    path = saved(nn.Linear(2, 2), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'torch\.nn\.modules\.linear\.Linear\)\..*{"trust_checkpoint=True"}'):
        read_checkpoint(path)


def test_trust_holds_within_its_block(tmp_path: Path, bomb: Any) -> None:
    path = saved({'x': bomb}, tmp_path / 'a.pth')
    with trust_checkpoints(True):
        with trust_checkpoints(False), pytest.raises(CheckpointError, match=REFUSED):
            read_checkpoint(path)
        with pytest.raises(CheckpointError, match=REFUSED):
            read_checkpoint(path, trust_checkpoint=False)
        assert not bomb.marker.exists()
        read_checkpoint(path)
        assert bomb.marker.exists()
    with pytest.raises(CheckpointError, match=REFUSED):
        read_checkpoint(path)
    with pytest.raises(KeyError), trust_checkpoints(True):
        raise KeyError
    with pytest.raises(CheckpointError, match=REFUSED):
        read_checkpoint(path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('new_format', [True, False])
def test_broken_bytes_give_one_kind_of_error(tmp_path: Path, bomb: Any, new_format: bool) -> None:
    path = saved({'x': bomb, 'w': WEIGHTS}, tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    whole, draw = path.read_bytes(), random.Random(0)  # noqa: S311
    for _ in range(150):
        broken = bytearray(whole)
        broken[draw.randrange(min(len(whole), 1200))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r'Nothing was executed|damaged'):
            read_checkpoint(path)
    assert not bomb.marker.exists()


@pytest.fixture(scope='module')
def training_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that mmengine's own Runner and CheckpointHook wrote."""
    pytest.importorskip('mmengine')
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Tiny(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, inputs: list[Tensor], mode: str = 'loss') -> dict[str, Tensor]:
            return {'loss': self.linear(torch.stack(inputs)).square().mean()}

    folder = tmp_path_factory.mktemp('run')
    runner = Runner(
        Tiny(),
        str(folder),
        train_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=[{'inputs': torch.ones(2)}] * 3,
        ),
        train_cfg=dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=3, by_epoch=False),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False),
        ),
        log_level='ERROR',
        randomness=dict(seed=0),
        experiment_name='safe_reading',
    )  # fmt: skip
    runner.train()
    return folder / 'iter_3.pth'


def test_mmengines_training_checkpoint_is_read_safely(training_checkpoint: Path) -> None:
    from mmengine.logging import HistoryBuffer

    content = read_checkpoint(training_checkpoint)
    expected = torch.load(training_checkpoint, weights_only=False)
    assert content.keys() == expected.keys() >= {'state_dict', 'optimizer', 'param_schedulers', 'message_hub'}
    assert str(content['state_dict']) == str(expected['state_dict'])
    assert str(content['optimizer']) == str(expected['optimizer'])
    assert content['param_schedulers'] == expected['param_schedulers']
    scalars = content['message_hub']['log_scalars']
    assert scalars.keys() == expected['message_hub']['log_scalars'].keys() >= {'train/loss', 'train/lr'}
    for name, buffer in scalars.items():
        assert type(buffer) is HistoryBuffer
        other = expected['message_hub']['log_scalars'][name]
        for ours, theirs in zip(buffer.data, other.data, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert buffer.statistics('mean') == other.statistics('mean')


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_the_state_of_a_one_cycle_schedule_is_read(tmp_path: Path, strategy: str) -> None:
    """It names one of the scheduler's own functions."""
    pytest.importorskip('mmengine')
    from mmengine.optim import OneCycleLR

    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    state = OneCycleLR(optimizer, eta_max=1.0, total_steps=10, anneal_strategy=strategy).state_dict()
    assert read_checkpoint(saved({'param_schedulers': [state]}, tmp_path / 'a.pth'))['param_schedulers'] == [state]


def test_mmengine_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_io, '_allow_list', functools.cache(weights_io._allow_list.__wrapped__))
    monkeypatch.setitem(sys.modules, 'mmengine.logging.history_buffer', None)
    assert str(read_checkpoint(saved(WEIGHTS, tmp_path / 'a.pth'))) == str(WEIGHTS)


def test_reading_leaves_torchs_allow_list_as_it_was(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(saved(WEIGHTS, tmp_path / 'a.pth'))
    assert set(torch.serialization.get_safe_globals()) == before
