"""A config file and a command line become one prepared config, or one clear error."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.model import BaseModel

from kdplugin import launch
from kdplugin.errors import CheckpointError, ConfigError

# read_config


def written(folder: Path, text: str, name: str = 'config.py') -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_config_is_parsed_with_its_bases_and_options(tmp_path: Path) -> None:
    written(tmp_path, "model = dict(type='A', depth=18)\nseed = 1\n", 'base.py')
    path = written(tmp_path, "_base_ = './base.py'\nmodel = dict(depth=50)\n")
    config = launch.read_config(path, {'model.width': 8, 'seed': 3})
    assert config.model == dict(type='A', depth=50, width=8)
    assert config.seed == 3
    assert config.filename == str(path)


def test_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Expected a config file but .*none\.py does not exist\. Check the path'):
        launch.read_config(tmp_path / 'none.py')


@pytest.mark.parametrize('through', ['config.py', 'child.py'])
def test_a_syntax_error_shows_the_line(tmp_path: Path, through: str) -> None:
    written(tmp_path, 'seed = 1\nmodel = dict(depth=18\n')
    written(tmp_path, "_base_ = './config.py'\n", 'child.py')
    message = r'Python in .* and its _base_ files but line 2 of one is not: .* \(model = dict\(depth=18\)\. Correct the'
    with pytest.raises(ConfigError, match=message):
        launch.read_config(tmp_path / through)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ("_base_ = './none.py'", r'FileNotFoundError: .*none\.py'),
        ("_base_ = ['mmseg::none/such.py']", r'FileNotFoundError: .*none/such\.py'),
        ("_base_ = ['mmunknown::a/x.py']", r'AssertionError: .*mmunknown'),
        ("_base_ = './base.py'\nx = _base_.depht", r'AttributeError: .*depht'),
        ("_base_ = './base.py'\ndepth = dict(x=1)", r'TypeError: depth='),
        ('x = unknown', r"NameError: name 'unknown' is not defined"),
        ('x = 1 / 0', r'ZeroDivisionError: division by zero'),
        ("x = int('a')", r'ValueError: invalid literal'),
        ("x = {}['a']", r"KeyError: 'a'"),
    ],
)
def test_whatever_a_config_raises_is_told(tmp_path: Path, text: str, reason: str) -> None:
    written(tmp_path, 'depth = 18\n', 'base.py')
    with pytest.raises(ConfigError, match=rf'Expected .*config\.py to parse but got {reason}.*Check its _base_ files'):
        launch.read_config(written(tmp_path, text + '\n'))


def test_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'notes\.txt to parse but got OSError: Only py/yml/yaml/json'):
        launch.read_config(written(tmp_path, 'text', 'notes.txt'))


def test_a_dict_among_the_options_is_merged_and_an_empty_one_empties(tmp_path: Path) -> None:
    """mmengine would merge an empty dict too, which changes nothing: ``model.pairs={}`` would distil all the same."""
    path = written(tmp_path, 'model = dict(pairs=dict(a=1, b=2), stages=[dict(x=1), dict(y=2)])\n')
    options = launch.parse_options(['model.pairs={"a": 3}', 'model.stages.1={}', 'model.new={}', 'other={}'])
    assert launch.read_config(path, options).to_dict() == {
        'model': {'pairs': {'a': 3, 'b': 2}, 'stages': [{'x': 1}, {}], 'new': {}}, 'other': {},
    }  # fmt: skip
    assert launch.read_config(path, launch.parse_options(['model.pairs={}'])).model.pairs == {}


def test_options_that_contradict_the_config(tmp_path: Path) -> None:
    path = written(tmp_path, 'depth = 18\n')
    with pytest.raises(ConfigError, match=r"--cfg-options that fit .* but got depth=\{'x': 1\}.*Name settings"):
        launch.read_config(path, {'depth.x': 1})


# parse_options

WORDS = [
    '1', '-1', '1.5', '1e-3', 'true', 'False', 'None', 'none', 'text', "'text'", '"text"', 'a,b', '1,2', '[1,2]',
    '[a,b]', "['a','b']", '(1,2)', '[(1,2),[a,b],c]', '[]', '', 'a=b', 's3://x/y.pth', 'dict(a=1)', 'inf',
]  # fmt: skip


@pytest.mark.parametrize('word', WORDS)
def test_values_are_read_as_mmengine_reads_them(word: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    expected = parser.parse_args(['--cfg-options', f'model.x={word}']).cfg_options
    ours = launch.parse_options([f'model.x={word}'])
    assert ours == expected
    assert type(ours['model.x']) is type(expected['model.x'])


def test_what_mmengine_does_not_read() -> None:
    options = launch.parse_options(["a={'type': 'B', 'n': [1, 2]}", 'work_dir=/my runs/one', 'a.b=1', 'a.b=2'])
    assert options == {'a': {'type': 'B', 'n': [1, 2]}, 'work_dir': '/my runs/one', 'a.b': 2}
    assert launch.parse_options(None) == launch.parse_options([]) == {}


def test_an_option_without_a_value() -> None:
    with pytest.raises(ConfigError, match=r"--cfg-options key=value but got 'seed'\. Write for example 'seed=0'"):
        launch.parse_options(['a=1', 'seed'])


@pytest.mark.parametrize('text', ['[1,', '(1,2', '{"a": 1', '{a: 1}'])
def test_brackets_that_do_not_match(text: str) -> None:
    with pytest.raises(ConfigError, match=r'--cfg-options x=value with matching brackets but got .*Correct the value'):
        launch.parse_options([f'x={text}'])


# prepare


def prepared(folder: Path, content: dict[str, Any] | None = None, **arguments: Any) -> Config:
    return launch.prepare(Config(content or {}), work_dir=str(folder / 'run'), **arguments)


def test_the_work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(written(tmp_path, "work_dir = 'mine'\n", 'recipe.py'))
    assert launch.prepare(config, work_dir='chosen').work_dir == 'chosen'
    assert launch.prepare(Config.fromfile(tmp_path / 'recipe.py')).work_dir == 'mine'
    assert launch.prepare(Config.fromfile(written(tmp_path, '', 'bare.py'))).work_dir == 'work_dirs/bare'
    assert all((tmp_path / name).is_dir() for name in ('chosen', 'mine', 'work_dirs/bare'))


def test_a_work_dir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'run').write_text('a file')
    message = r'a writable work dir but .*run is not: .*Choose another one with --work-dir'
    with pytest.raises(ConfigError, match=message):
        prepared(tmp_path)
    with pytest.raises(ConfigError, match=message):
        launch.prepare(Config({}), work_dir=str(tmp_path / 'run/below/run'))


@pytest.mark.parametrize(
    ('hooks', 'expected'),
    [
        (None, dict(checkpoint=dict(type='kdplugin.SafeCheckpointHook', interval=1))),
        (
            dict(checkpoint=dict(type='CheckpointHook', interval=5, save_best='mIoU'), timer=dict(type='T')),
            dict(
                checkpoint=dict(type='kdplugin.SafeCheckpointHook', interval=5, save_best='mIoU'), timer=dict(type='T')
            ),
        ),
        (dict(checkpoint=dict(type='MyHook')), dict(checkpoint=dict(type='MyHook'))),
        (dict(checkpoint=None), dict(checkpoint=None)),
    ],
    ids=['default', 'mmengine', 'own', 'switched off'],
)
def test_checkpoints_are_saved_safely(tmp_path: Path, hooks: Any, expected: Any) -> None:
    assert prepared(tmp_path, dict(default_hooks=hooks)).default_hooks == expected
    if hooks is None:
        assert prepared(tmp_path).default_hooks == expected


def test_a_distilled_run_gets_its_hook_once(tmp_path: Path) -> None:
    hook = dict(type='kdplugin.DistillationHook')
    model = dict(type='kdplugin.Distiller', student=dict(type='A'))
    assert prepared(tmp_path, dict(model=model)).custom_hooks == [hook]
    others = [dict(type='EMAHook')]
    assert prepared(tmp_path, dict(model=model, custom_hooks=others)).custom_hooks == [*others, hook]
    assert prepared(tmp_path, dict(model=model, custom_hooks=[hook, *others])).custom_hooks == [hook, *others]
    assert prepared(tmp_path, dict(model=dict(type='A'), custom_hooks=others)).custom_hooks == others


@pytest.mark.parametrize('kind', [{}, dict(type='OptimWrapper'), dict(type='AmpOptimWrapper', loss_scale=512.0)])
@pytest.mark.parametrize('gpu', [True, False])
def test_amp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any], gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    wrapper = dict(kind, optimizer=dict(type='SGD', lr=0.1))
    config = prepared(tmp_path, dict(optim_wrapper=wrapper), amp=True)
    expected = (
        dict(type='AmpOptimWrapper', loss_scale=kind.get('loss_scale', 'dynamic'))
        if gpu
        else dict(type='kdplugin.CPUAmpOptimWrapper')
    )
    assert config.optim_wrapper == dict(expected, optimizer=dict(type='SGD', lr=0.1))


@pytest.mark.parametrize('content', [{}, dict(optim_wrapper=dict(type='ApexOptimWrapper'))])
def test_amp_needs_a_plain_wrapper(tmp_path: Path, content: dict[str, Any]) -> None:
    message = r'Expected an OptimWrapper for --amp but got (None|ApexOptimWrapper)\. Set mixed precision in the config'
    with pytest.raises(ConfigError, match=message):
        prepared(tmp_path, content, amp=True)


def test_processes_without_gpus_get_a_wrapper_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    config = prepared(tmp_path, dict(find_unused_parameters=True), launcher='pytorch')
    assert config.launcher == 'pytorch'
    assert config.model_wrapper_cfg == dict(
        type='kdplugin.CPUDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True
    )
    assert 'model_wrapper_cfg' not in prepared(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert 'model_wrapper_cfg' not in prepared(tmp_path, launcher='pytorch')


# resume


def save(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': {'w': torch.zeros(1)}, 'optimizer': {}, **content}, path)
    return path


def test_a_named_checkpoint_is_resumed(tmp_path: Path) -> None:
    path = save(tmp_path / 'elsewhere/any.pth')
    config = prepared(tmp_path, resume=str(path))
    assert (config.resume, config.load_from) == (True, str(path))
    with pytest.raises(CheckpointError, match=r'checkpoint to resume but .*none\.pth does not exist\. Check the path'):
        prepared(tmp_path, resume=str(tmp_path / 'none.pth'))


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    save(tmp_path / 'run/iter_9.pth')
    newest = save(tmp_path / 'run/iter_10.pth')
    torn = save(tmp_path / 'run/iter_11.pth')
    torn.write_bytes(torn.read_bytes()[:100])
    config = prepared(tmp_path, resume='auto')
    assert (config.resume, config.load_from) == (True, str(newest))


def test_without_a_checkpoint_a_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = prepared(tmp_path, dict(load_from='start.pth', resume=True), resume='auto')
    assert (config.resume, config.load_from) == (False, 'start.pth')
    assert 'No complete checkpoint in' in capsys.readouterr().out


def test_without_resume_the_config_decides(tmp_path: Path) -> None:
    save(tmp_path / 'run/iter_9.pth')
    config = prepared(tmp_path, dict(load_from='start.pth', resume=True))
    assert (config.resume, config.load_from) == (True, 'start.pth')
    assert 'resume' not in prepared(tmp_path)


def test_trust_reaches_the_search_for_checkpoints(tmp_path: Path, bomb: Any) -> None:
    newest = save(tmp_path / 'run/iter_2.pth', message_hub=bomb)
    assert prepared(tmp_path, resume='auto').resume is False
    assert not bomb.marker.exists()
    assert prepared(tmp_path, dict(trust_checkpoint=True), resume='auto').load_from == str(newest)
    assert bomb.marker.exists()


def test_a_strategy_that_would_be_left_out(tmp_path: Path) -> None:
    strategy = dict(type='kdplugin.FSDPStrategy')
    with pytest.raises(
        ConfigError, match=r"runner_type='FlexibleRunner' beside strategy kdplugin\.FSDPS.* but got None"
    ):
        prepared(tmp_path, dict(strategy=strategy))
    prepared(tmp_path, dict(strategy=strategy, runner_type='FlexibleRunner'))


def test_projection_does_not_fit_shards(tmp_path: Path) -> None:
    content = dict(runner_type='FlexibleRunner', custom_hooks=[dict(type='kdplugin.WeightProjectionHook')])
    with pytest.raises(ConfigError, match=r'whole weights for .*ProjectionHook but kdplugin\.FSDPStrategy shards them'):
        prepared(tmp_path, dict(content, strategy=dict(type='kdplugin.FSDPStrategy')))


@pytest.mark.parametrize(('hooks', 'noted'), [(None, True), (dict(checkpoint=dict(type='MyHook')), False)])
def test_signals_stay_deadly_where_no_hook_acts_on_them(tmp_path: Path, hooks: Any, noted: bool) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with launch._stoppable(prepared(tmp_path, dict(default_hooks=hooks))):
        assert (signal.getsignal(signal.SIGTERM) is not before) is noted
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_recipe_that_saves_elsewhere_is_searched_there(tmp_path: Path) -> None:
    newest = save(tmp_path / 'big/run/iter_3.pth')
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=str(tmp_path / 'big')))
    assert prepared(tmp_path, dict(default_hooks=hooks), resume='auto').load_from == str(newest)


def test_a_checkpoint_to_test_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'checkpoint to test but .*none\.pth does not exist\. Check the path'):
        launch.test(Config({}), str(tmp_path / 'none.pth'))


class Pair(BaseModel):
    """Two layers; the second may have another width."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(2, 3), torch.nn.Linear(3, width)

    def forward(self, inputs: Any, mode: str = 'tensor') -> Any:
        return inputs


@pytest.mark.parametrize(
    ('weights', 'reason'),
    [
        (torch.nn.Linear(2, 3).state_dict(), r"4 tensors are missing .* such as \['one\.weight', 'one\.bias', 'two\.w"),
        (Pair(4).state_dict(), r"2 tensors are missing or of another shape, such as \['two\.weight', 'two\.bias'\]"),
    ],
    ids=['another-model', 'another-width'],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_a_checkpoint_that_leaves_weights_random_is_not_tested(
    tmp_path: Path, weights: Any, reason: str, wrapped: bool
) -> None:
    """mmengine would warn and measure a partly random model."""
    torch.save({'state_dict': weights} if wrapped else weights, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'Expected .*a\.pth to hold all weights of the model but {reason}'):
        launch._require_weights(Pair(), str(tmp_path / 'a.pth'))


def test_a_checkpoint_to_test_may_hold_more_and_have_the_prefix_of_ddp(tmp_path: Path) -> None:
    model = Pair()
    weights = {f'module.{key}': value + 1 for key, value in model.state_dict().items()}
    torch.save({'state_dict': {**weights, 'module.head.weight': torch.zeros(1)}}, tmp_path / 'a.pth')
    launch._require_weights(model, str(tmp_path / 'a.pth'))
    assert torch.equal(model.two.bias, weights['module.two.bias'])
