"""What holds for the classes of all losses: where they are, what they compare, which keywords they take.

That mmengine finds each of them without custom_imports is shown in tests/test_registry.py, by a process of its own.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import kdplugin.losses
from kdplugin.losses.base import DistillationLoss

ROOT = Path(__file__).parents[2]
CLASSES = {name: getattr(kdplugin.losses, name) for name in kdplugin.losses.__all__ if name.endswith('Loss')}
MASKED = ('BoxOverlapLoss', 'QueryBoxLoss', 'QueryClassLoss', 'InstanceMaskLoss')
"""Losses on boxes, queries and masks, which are not tapped as maps."""
MODULES = [f'kdplugin.losses.{module.name}' for module in pkgutil.iter_modules(kdplugin.losses.__path__)]


def test_every_class_of_the_room_is_exported() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / 'kdplugin/losses').glob('*.py')]
    classes = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes - {'DistillationLoss'} == set(CLASSES)
    assert len(CLASSES) == 18


@pytest.mark.parametrize('name', CLASSES)
def test_a_loss_says_what_it_compares_and_which_keywords_it_takes(name: str) -> None:
    kind = CLASSES[name]
    parameters = inspect.signature(kind.forward).parameters
    keywords = {key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert issubclass(kind, DistillationLoss)
    assert kind.compares in ('features', 'logits', 'relations')
    assert list(parameters)[:3] == ['self', 'student', 'teacher']
    assert {'labels', *kind.takes} == keywords
    assert set(kind.needs) <= set(kind.takes)
    assert all(parameters[key].default is None for key in keywords)
    assert not list(kind().parameters())
    assert not list(kind().buffers())


@pytest.mark.parametrize('module', MODULES)
def test_examples_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    assert sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))) >= 9


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', [name for name in CLASSES if name not in MASKED])
def test_a_student_that_is_not_finite_is_not_hidden(name: str, value: float) -> None:
    """The engine stops at a distance that is no number, so a loss must not take NaN for a vector without direction."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 16, 6, 6, generator=generator)
    student[0, 3, 2, 2] = value
    given = dict(
        labels=torch.zeros(4, 6, 6, dtype=torch.long), boxes=[torch.tensor([[0.0, 0.0, 9.0, 9.0]])] * 4,
        image_size=(24, 24),
    )  # fmt: skip
    loss = CLASSES[name](**({'logits': True} if name == 'AttentionMapLoss' else {}))
    found = loss(student, teacher, **{key: given[key] for key in given if key in ('labels', *loss.takes)})
    assert not found.isfinite()
