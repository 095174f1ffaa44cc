"""The command lines of map_weights, project_weights and rename_weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import map_weights
import project_weights
import pytest
import rename_weights
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor, shared
from mmengine.config import Config
from torch import Tensor

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.reading.io import hash_file, hash_tensors, read_checkpoint

__all__ = ['shared']

ROOT = Path(__file__).parents[2]


def weights_of(path: Path) -> dict[str, Tensor]:
    return dict(read_checkpoint(path)['state_dict'])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    weights = {'module.a.weight': torch.ones(2), 'module.a.bias': torch.zeros(2), 'module.b.weight': torch.ones(3)}
    torch.save({'state_dict': weights, 'meta': {'epoch': 3}}, tmp_path / 'in.pth')
    return tmp_path / 'in.pth'


# rename_weights


@pytest.mark.parametrize(
    ('words', 'names'),
    [
        (['--remove-prefix', 'module.'], ['a.weight', 'a.bias', 'b.weight']),
        (['--add-prefix', 'x.'], ['x.module.a.weight', 'x.module.a.bias', 'x.module.b.weight']),
        (['--replace-prefix', 'module.a.', 'c.'], ['c.weight', 'c.bias', 'module.b.weight']),
        (['--remove-prefix', 'module.', '--add-prefix', 'net.'], ['net.a.weight', 'net.a.bias', 'net.b.weight']),
    ],
)
def test_prefixes_are_renamed(file: Path, tmp_path: Path, words: list[str], names: list[str]) -> None:
    assert rename_weights.main([str(file), str(tmp_path / 'out.pth'), *words]) == 0
    assert list(weights_of(tmp_path / 'out.pth')) == names
    assert read_checkpoint(tmp_path / 'out.pth')['meta'] == {'epoch': 3}


@pytest.mark.parametrize(
    ('words', 'left'), [([], ['new', 'module.a.bias', 'module.b.weight']), (['--drop-unmapped'], ['new'])]
)
def test_a_mapping_file_renames(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], left: list[str]
) -> None:
    (tmp_path / 'map.json').write_text(json.dumps({'module.a.weight': 'new'}))
    arguments = [str(file), str(tmp_path / 'out.pth'), '--mapping', str(tmp_path / 'map.json'), *words]
    assert rename_weights.main(arguments) == 0
    assert list(weights_of(tmp_path / 'out.pth')) == left
    assert f'out.pth: {len(left)} of 3 tensors, 1 under new names' in capsys.readouterr().out


def test_a_plan_that_only_renames_is_a_mapping(file: Path, tmp_path: Path) -> None:
    plan = ProjectionPlan('a', 'b', (Entry('new', (2,), 'renamed', (Piece('a.weight'),)),))
    plan.save(tmp_path / 'plan.json')
    arguments = [str(file), str(tmp_path / 'out.pth'), '--mapping', str(tmp_path / 'plan.json'), '--drop-unmapped']
    assert rename_weights.main(arguments) == 0
    assert list(weights_of(tmp_path / 'out.pth')) == ['new']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'map.json does not exist'),
        ('{', 'Expected JSON in'),
        ('["a"]', 'Expected {"old name": "new name", ...} in'),
        ('{"module.a.wieght": "x"}', "Did you mean 'module.a.weight'"),
        (
            '{"module.a.weight": "y", "module.b.weight": "y"}',
            "got 'y' for both 'module.a.weight' and 'module.b.weight'",
        ),
        ('{"entries": []}', 'Expected the JSON of a projection plan'),
    ],
)
def test_a_wrong_mapping_is_one_line_and_no_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / 'map.json').write_text(text)
    arguments = [str(file), str(tmp_path / 'out.pth'), '--mapping', str(tmp_path / 'map.json')]
    assert rename_weights.main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('words', [[], ['--drop-unmapped', '--add-prefix', 'x.']])
def test_a_call_that_says_too_little_is_answered_with_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        rename_weights.main(['in.pth', 'out.pth', *words])
    assert 'usage:' in capsys.readouterr().err


# project_weights, with a plan


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> str:
    """A KD config: its student is the target."""
    Config(dict(default_scope='mmseg', model=distilled(shared, feature_and_logit_pairs()))).dump(tmp_path / 'kd.py')
    return str(tmp_path / 'kd.py')


def test_a_plan_is_carried_out_under_the_names_of_the_config(
    shared: Path, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build(segmentor()).backbone
    taken = 'layer1.0.bn1.weight'
    entries = [
        Entry(name, tuple(value.shape), 'random', reason='by hand') for name, value in model.state_dict().items()
    ]
    wide = {'v': torch.full((8,), 5.0)}
    torch.save(wide, tmp_path / 'wide.pth')
    plan = ProjectionPlan('wide.pth', 'backbone', tuple(entries))
    plan.replaced(Entry(taken, (8,), 'renamed', (Piece('v'),))).save(tmp_path / 'plan.json')
    words = [str(tmp_path / 'wide.pth'), config, str(tmp_path / 'out.pth'), '--target', 'backbone']
    words += ['--plan', str(tmp_path / 'plan.json'), '--report', str(tmp_path / 'report')]
    assert project_weights.main(words) == 0
    written = read_checkpoint(tmp_path / 'out.pth')
    assert list(written['state_dict']) == [f'backbone.{taken}']
    assert torch.equal(written['state_dict'][f'backbone.{taken}'], wide['v'])
    record = written['meta']['kdplugin']['projection']
    assert (record['sha256'], record['target']) == (hash_file(tmp_path / 'wide.pth'), 'backbone')
    assert record['coverage']['parameters'] == pytest.approx(8 / sum(v.numel() for v in model.state_dict().values()))
    out = capsys.readouterr().out
    assert 'out.pth: 1 tensors' in out
    assert 'x by hand: conv1.weight' in out
    assert (tmp_path / 'report' / 'layers.png').is_file()
    assert project_weights.main([*words, '--min-coverage', '0.5']) == 1
    assert 'Expected wide.pth to give 50.0 % of the parameters of backbone' in capsys.readouterr().err


# both, with a plan that is made


def test_a_plan_is_shown_written_and_carried_out(
    shared: Path, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(shared / 'segmentor.pth')
    before = hash_file(source)
    words = [source, config, '--json', str(tmp_path / 'plan.json'), '--picture', str(tmp_path / 'plan.png')]
    assert map_weights.main(words) == 0
    said = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f'{source} -> EncoderDecoder' in said
    assert f'loaded 128 100.00 {sum(v.numel() for v in build(segmentor()).state_dict().values()):,} 100.00' in said
    assert {file.name for file in tmp_path.iterdir()} == {'kd.py', 'plan.json', 'plan.png'}
    arguments = [source, config, str(tmp_path / 'out.pth'), '--plan', str(tmp_path / 'plan.json')]
    assert project_weights.main([*arguments, '--min-coverage', '1']) == 0
    build(segmentor()).load_state_dict(weights_of(tmp_path / 'out.pth'), strict=True)
    assert project_weights.main([source, config, str(tmp_path / 'again.pth')]) == 0
    assert hash_tensors(weights_of(tmp_path / 'again.pth')) == hash_tensors(weights_of(tmp_path / 'out.pth'))
    assert hash_file(source) == before


def test_nothing_in_common_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({'a.weight': torch.ones(7, 3)}, tmp_path / 'a.pth')
    torch.save({'b.table': torch.ones(2, 2, 2, 2, 2)}, tmp_path / 'b.pth')
    assert map_weights.main([str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')]) == 1
    printed = capsys.readouterr()
    assert 'random, not loaded:' in printed.out
    assert 'got 0.0 %; 1 of 1 tensors are not loaded (b.table' in printed.err
    assert project_weights.main([str(tmp_path / name) for name in ('a.pth', 'b.pth', 'out.pth')]) == 1
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('tool', [map_weights, project_weights, rename_weights])
def test_help_states_the_exit_codes(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='0'):
        tool.main(['--help'])
    assert re.search(r'Exit code 0: .*; 1: ', capsys.readouterr().out, re.DOTALL)


def test_a_users_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / 'tools' / 'map_weights.py', tmp_path / 'none.pth', 'timm:resnet18']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('error: Expected a checkpoint file or folder but')
    assert 'Traceback' not in done.stderr
    assert map_weights.parse_arguments(['a', 'b']).layers == 'uniform'
