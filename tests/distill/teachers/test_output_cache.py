"""Outputs on disk are those of the teacher, for the same image and settings alone, within their room."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from kdplugin.distill.teachers.output_cache import OutputCache, cache_mistakes, parse_bytes
from kdplugin.errors import ConfigError

TAPS = ['neck', 'head']
Make = Callable[..., OutputCache]


class Runs:
    """A teacher whose outputs follow from its images, and which counts how often it runs."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.count = images, 0

    def __call__(self) -> dict[str, list[Tensor]]:
        self.count += 1
        levels = [self.images[..., :: 2**n, :: 2**n] * 3 for n in range(11)]
        return {'neck': levels, 'head': [self.images.mean(dim=(2, 3)).to(torch.bfloat16)]}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def samples(tmp_path: Path) -> list[Any]:
    for name in 'ab':
        (tmp_path / f'{name}.png').write_text(name)
    return [BaseDataElement(metainfo=dict(img_path=str(tmp_path / f'{n}.png'), img_shape=(20, 24))) for n in 'ab']


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda max_bytes=10**6, **about: OutputCache(tmp_path / 'cache', max_bytes, about)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / 'cache').rglob('*.safetensors'))


def test_what_was_kept_comes_back_without_the_teacher(make: Make, images: Tensor, samples: list[Any]) -> None:
    runs = Runs(images)
    first = make().outputs(TAPS, images, samples, 'float32', runs)
    cache = make()
    second = cache.outputs(TAPS, images, samples, 'float32', runs)
    assert (runs.count, cache.hits, cache.misses) == (1, 2, 0)
    for tap in TAPS:
        assert len(first[tap]) == len(second[tap]) == (11 if tap == 'neck' else 1)
        for one, other in zip(first[tap], second[tap], strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_batches_are_split_and_joined_anew(make: Make, images: Tensor, samples: list[Any]) -> None:
    cache, runs = make(), Runs(images)
    cache.outputs(TAPS, images, samples, 'float32', runs)
    swapped = Runs(images.flip(0))
    found = cache.outputs(TAPS, images.flip(0), samples[::-1], 'float32', swapped)
    alone = cache.outputs(['head'], images[1:], samples[1:], 'float32', swapped)
    assert swapped.count == 0
    assert torch.equal(found['neck'][2], swapped()['neck'][2])
    assert torch.equal(alone['head'][0], found['head'][0][:1])


def test_one_unknown_image_makes_the_teacher_run_for_all(make: Make, images: Tensor, samples: list[Any]) -> None:
    cache = make()
    cache.outputs(TAPS, images[:1], samples[:1], 'float32', Runs(images[:1]))
    runs = Runs(images)
    cache.outputs(TAPS, images, samples, 'float32', runs)
    cache.outputs(TAPS, images, samples, 'float32', runs)
    assert runs.count == 1
    assert (cache.hits, cache.misses) == (2, 3)


def touched(samples: list[Any]) -> None:
    os.utime(samples[0].img_path, ns=(1, 1))


@pytest.mark.parametrize(
    'change',
    [
        dict(precision='bfloat16'),
        dict(taps=['neck', 'box']),
        dict(images=lambda images: images.flip(3)),
        dict(images=lambda images: images + 1e-3),
        dict(images=lambda images: torch.nn.functional.pad(images, (0, 0, 0, 12))),
        dict(meta=dict(img_id=7)),
        dict(meta=dict(img_shape=(19, 24))),
        dict(meta=dict(img_path='elsewhere.png')),
        dict(meta=dict(flip=True)),
        dict(about=dict(teacher='other')),
        dict(touch=touched),
    ],
)
def test_another_image_or_setting_is_another_entry(
    make: Make, images: Tensor, samples: list[Any], change: dict[str, Any]
) -> None:
    make(teacher='one').outputs(TAPS, images, samples, 'float32', Runs(images))
    samples[0].set_metainfo(change.get('meta', {}))
    change.get('touch', lambda samples: None)(samples)
    images = change.get('images', lambda images: images)(images)
    runs = Runs(images)
    about = change.get('about', dict(teacher='one'))
    taps = change.get('taps', TAPS)
    make(**about).outputs(
        taps, images, samples, change.get('precision', 'float32'), lambda: {**runs(), 'box': runs()['head']}
    )
    assert runs.count > 0


def test_what_all_have_in_common_can_be_read(make: Make, tmp_path: Path) -> None:
    cache = make(teacher='abc', transforms='[]')
    assert json.loads((cache.folder / 'about.json').read_text()) == dict(teacher='abc', transforms='[]')
    assert cache.folder.parent == tmp_path / 'cache'


def test_bytes_are_bounded_and_the_end_of_the_room_is_told_once(
    make: Make, images: Tensor, samples: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.teachers.output_cache.print_log', lambda message, **_: said.append(message))
    room = 14_000
    cache = make(room)
    for shift in range(3):
        cache.outputs(['neck'], images + shift, samples, 'float32', Runs(images + shift))
    kept = files(tmp_path)
    assert 0 < sum(file.stat().st_size for file in kept) <= room
    assert len(said) == 1
    assert 'room for the outputs of all images' in said[0]
    assert 'max_bytes is reached. The teacher runs for the others' in said[0]
    again = make(room, other='settings')
    again.outputs(['neck'], images + 5, samples, 'float32', Runs(images))
    assert files(tmp_path) == kept


def test_processes_share_the_room(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('kdplugin.distill.teachers.output_cache.get_world_size', lambda: 4)
    assert make(1000).left == 250


def test_a_damaged_file_is_computed_anew(make: Make, images: Tensor, samples: list[Any], tmp_path: Path) -> None:
    runs = Runs(images)
    make().outputs(TAPS, images, samples, 'float32', runs)
    for file in files(tmp_path):
        file.write_bytes(file.read_bytes()[:50])
    cache = make()
    cache.outputs(TAPS, images, samples, 'float32', runs)
    assert runs.count == 2
    cache.outputs(TAPS, images, samples, 'float32', runs)
    assert runs.count == 2


@pytest.mark.parametrize(
    ('text', 'number'), [('20GB', 20 * 10**9), ('1.5 MB', 1_500_000), (4096, 4096), ('7', 7), ('2TB', 2 * 10**12)]
)
def test_sizes_are_read(text: Any, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize(
    ('cache', 'message'),
    [
        (True, r"cache=dict\(dir='...', max_bytes='20GB'\) in teacher but got True"),
        (dict(max_bytes=3), r"cache=dict\(dir='...', max_bytes='20GB'\) in teacher but got \{'max_bytes': 3\}"),
        (dict(dir='x', max_bytes='1GB', max_byte=2), r"\['dir', 'max_bytes'\] .* got 'max_byte'\. Did you mean"),
        (dict(dir='x'), "max_bytes such as '20GB' in teacher.cache but got None"),
        (dict(dir='x', max_bytes='much'), "max_bytes such as '20GB' in teacher.cache but got 'much'"),
        (dict(dir='x', max_bytes=True), 'max_bytes .* but got True'),
    ],
)
def test_mistakes_are_named(cache: Any, message: str) -> None:
    (mistake,) = cache_mistakes(dict(cache=cache))
    with pytest.raises(ConfigError, match=message):
        raise mistake


def test_good_settings_have_no_mistakes() -> None:
    assert list(cache_mistakes(dict(cache=dict(dir='x', max_bytes='20GB')))) == []
    assert list(cache_mistakes({})) == []
