"""docs/distillation.md: its examples run, its types exist, its messages are the real ones."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from kdplugin.distill.methods import Method, TapLoss
from kdplugin.distill.pairs import ENGINE_KEYS
from kdplugin.distill.teachers.teacher import TEACHER_KEYS
from kdplugin.losses.base import DistillationLoss
from kdplugin.registry import MODELS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/distillation.md').read_text()
EXAMPLES = re.findall(r'```python\n(.*?)```', PAGE.split('## Without a Runner')[1], re.DOTALL)
CODE = '\n'.join(path.read_text() for path in (ROOT / 'kdplugin').rglob('*.py'))
PLAIN = re.sub(r"'\s+(?:f?r?)'", '', re.sub(r'\s+', ' ', CODE)).replace('f"', "f'")


def test_there_are_four_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize('number', range(4))
def test_an_example_runs_as_it_stands(number: int) -> None:
    assert 'mm' not in re.sub(r'torch\.\w+', '', EXAMPLES[number])
    exec(compile(EXAMPLES[number], f'example {number}', 'exec'), {})  # noqa: S102


def registered(base: type) -> set[str]:
    MODELS.get('TapLoss')  # imports what is registered
    return {name for name, kind in MODELS.module_dict.items() if inspect.isclass(kind) and issubclass(kind, base)}


def sections(*titles: str) -> str:
    return '\n'.join(PAGE.split(f'\n## {title}\n')[1].split('\n## ')[0] for title in titles)


def test_every_loss_of_pairs_and_every_method_is_in_the_tables() -> None:
    """The losses that pairs do not match yet (boxes, queries, masks by themselves) are parts of the methods."""
    named = set(re.findall(r'(?:^\| |, )`(\w+)\(', sections('Losses'), re.MULTILINE))
    parts = {'SoftQualityFocalLoss', 'InstanceMaskLoss', 'BoxOverlapLoss', 'QueryClassLoss', 'QueryBoxLoss'}
    losses, methods = registered(DistillationLoss), registered(Method) - {TapLoss.__name__}
    assert named == (losses - parts) | methods
    for kind, settings in re.findall(r'`(\w+)\((\w+(?:, \w+)*)\)`', sections('Losses')):
        known = inspect.signature(MODELS.module_dict[kind]).parameters
        assert set(settings.split(', ')) <= set(known), kind


def test_keys_of_pairs_and_teachers_are_explained() -> None:
    assert {key for key in ENGINE_KEYS if key not in PAGE} == set()
    assert {key for key in TEACHER_KEYS if key not in PAGE} <= {'trust_checkpoint'}


def test_messages_are_the_real_ones() -> None:
    shown = re.findall(r'^\| `(Expected .*?)` \|', sections('Troubleshooting'), re.MULTILINE)
    assert len(shown) >= 10
    for message in shown:
        parts = [part.strip() for part in re.split(r"'x'|\.\.\.|the (?:teacher|student)\b", message)]
        assert [part for part in parts if part not in PLAIN] == [], message
