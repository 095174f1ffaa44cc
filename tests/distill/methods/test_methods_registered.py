"""What holds for all methods: exported, found by their type, named in the README, and their examples run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import kdplugin.distill.methods as room
from kdplugin.distill.methods import Method
from kdplugin.distill.pairs import method_class, setting_names
from kdplugin.registry import MODELS

ROOT = Path(__file__).parents[3]
METHODS = {name: getattr(room, name) for name in room.__all__ if name not in ('Method', 'StepContext')}
MODULES = [f'{room.__name__}.{module.name}' for module in pkgutil.iter_modules(room.__path__)]


def test_every_registered_method_is_exported() -> None:
    registered = {name for name, value in MODELS.module_dict.items() if isinstance(value, type)}
    assert {name for name in registered if issubclass(MODELS.module_dict[name], Method)} == set(METHODS)
    assert {'MGD', 'FGD', 'AttentionKD', 'CrossKD', 'QueryKD', 'MaskKD', 'TapLoss'} == set(METHODS)


@pytest.mark.parametrize('name', METHODS)
def test_a_method_is_found_by_its_type_and_takes_taps(name: str) -> None:
    found = method_class('p', dict(type=f'kdplugin.{name}'))
    assert found is METHODS[name]
    places = {'blocks'} if name == 'AttentionKD' else {'tap', 'student_tap', 'teacher_tap'}
    assert places <= set(setting_names(found))


@pytest.mark.parametrize('name', sorted(METHODS.keys() - {'TapLoss'}))
def test_the_readme_names_it(name: str) -> None:
    assert f'| `kdplugin.{name}(' in (ROOT / 'README.md').read_text()


def test_examples_run() -> None:
    results = [doctest.testmod(importlib.import_module(module)) for module in MODULES]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5
