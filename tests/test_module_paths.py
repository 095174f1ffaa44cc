"""Paths and patterns find what they name, and a miss says what was probably meant."""

from __future__ import annotations

import re

import pytest
from torch import nn

from kdplugin.errors import PathError
from kdplugin.module_paths import did_you_mean, find_module, match_modules


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 1)
        self.bn1 = nn.BatchNorm2d(1)
        self.shortcut = None


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block(), Block())
        self.decode_head = Block()
        self.scale = nn.Parameter(nn.Linear(1, 1).weight)
        self.alias = self.decode_head

    @property
    def bbox_head(self) -> nn.Module:
        return self.decode_head


def test_every_module_is_found_by_its_own_name() -> None:
    model = Model()
    for name, module in model.named_modules():
        if name:
            assert find_module(model, name, 'student') is module
    assert find_module(model, 'alias.conv1', 'student') is model.decode_head.conv1


@pytest.mark.parametrize(
    'path', ['', '.', 'backbone.', 'backbone..conv1', 'backbone.2', 'scale', 'bbox_head', 'decode_head.shortcut']
)
def test_what_is_not_a_module_is_a_miss(path: str) -> None:
    with pytest.raises(PathError, match=rf'Expected a module path of the teacher but got {re.escape(repr(path))}\.'):
        find_module(Model(), path, 'teacher')


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [
        ('backbon', "'backbone'"),
        ('decode_head.conv_1', "'decode_head.conv1'"),
        ('backbone.0.bn', "'backbone.0.bn1'"),
        ('conv1', "'backbone.0.conv1' or 'backbone.1.conv1' or 'decode_head.conv1'"),
        ('module.backbone.1', "'backbone.1'"),
    ],
)
def test_a_miss_suggests(wrong: str, right: str) -> None:
    with pytest.raises(PathError, match=rf'got {wrong!r}\. Did you mean [^?]*{re.escape(right)}'):
        find_module(Model(), wrong, 'student')


def test_a_miss_names_the_top_level() -> None:
    with pytest.raises(PathError, match=r"got 'xyzzy'\. Its top-level modules are \['backbone', 'decode_head'"):
        find_module(Model(), 'xyzzy', 'student')


def test_did_you_mean() -> None:
    assert did_you_mean('temprature', ['temperature', 'weight']) == " Did you mean 'temperature'?"
    assert did_you_mean('zzz', ['temperature', 'weight']) == ''
    assert did_you_mean('a.tap', iter(['b.c.tap'])) == " Did you mean 'b.c.tap'?"
    assert did_you_mean('x', []) == ''


@pytest.mark.parametrize(
    ('patterns', 'selected'),
    [
        (['decode_head'], ['decode_head']),
        (['backbone.?'], ['backbone.0', 'backbone.1']),
        (['backbone.[1].bn*'], ['backbone.1.bn1', 'backbone.1.bn1.weight', 'backbone.1.bn1.bias']),
        (['*.conv1'], ['backbone.0.conv1', 'backbone.1.conv1', 'decode_head.conv1']),
        (['scale'], ['scale']),
        (['decode_head', 'backbone.1', 'backbone'], ['backbone', 'backbone.1', 'decode_head']),
        (['*.1.conv1.bias', '*.1.conv1.*'], ['backbone.1.conv1.weight', 'backbone.1.conv1.bias']),
        ([], []),
    ],
)
def test_patterns_select_in_model_order_and_once(patterns: list[str], selected: list[str]) -> None:
    assert match_modules(Model(), patterns, 'student') == selected


def test_a_star_selects_every_module_and_parameter() -> None:
    model = Model()
    everything = {name for name, _ in model.named_modules() if name} | {name for name, _ in model.named_parameters()}
    assert set(match_modules(model, ['*'], 'student')) == everything


@pytest.mark.parametrize('pattern', ['Backbone', 'backbone.3', 'backbone.*.bn2', ''])
def test_a_pattern_without_a_match_is_an_error(pattern: str) -> None:
    message = rf'selects something in the student but {re.escape(repr(pattern))} matches nothing\..*Name a module'
    with pytest.raises(PathError, match=message):
        match_modules(Model(), ['decode_head', pattern], 'student')


def test_a_pattern_without_a_match_suggests() -> None:
    with pytest.raises(PathError, match=r"matches nothing\. Did you mean 'backbone\.0\.bn1'"):
        match_modules(Model(), ['backbone.0.bn'], 'student')
