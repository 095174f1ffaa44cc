"""The mapper's interface: what it returns, reports and refuses, and that it leaves models as they were."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.renamer import WeightRenamer


def net(first: str, second: str, last: str) -> nn.Module:
    layers = {first: nn.Linear(4, 8), second: nn.BatchNorm1d(8), last: nn.Linear(8, 3)}
    return nn.Sequential(OrderedDict(layers))


def old() -> nn.Module:
    torch.manual_seed(0)
    return net('fc_in', 'norm', 'classifier')


def new() -> nn.Module:
    torch.manual_seed(1)
    return net('linear1', 'bn', 'cls_head')


WANTED = {
    f'{a}.{leaf}': f'{b}.{leaf}'
    for a, b, leaves in [
        ('fc_in', 'linear1', ('weight', 'bias')),
        ('norm', 'bn', ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')),
        ('classifier', 'cls_head', ('weight', 'bias')),
    ]
    for leaf in leaves
}


@pytest.mark.parametrize('strategy', ['best_match', 'conservative', 'shape_only'])
def test_each_strategy_maps_a_renamed_model(strategy: str) -> None:
    assert WeightMapper(old(), new()).suggest_mapping(strategy=strategy) == WANTED


@pytest.mark.parametrize('suffix', ['.pth', '.ckpt'])
def test_from_a_checkpoint_to_a_strict_load(tmp_path: Path, suffix: str) -> None:
    source, target = old(), new()
    path = tmp_path / f'old{suffix}'
    torch.save({'state_dict': source.state_dict(), 'epoch': 3}, path)
    mapper = WeightMapper.from_checkpoint(path, target)
    renamer = WeightRenamer(path)
    renamer.rename_keys(mapper.suggest_mapping())
    renamer.save(tmp_path / 'new.pth')
    saved = torch.load(tmp_path / 'new.pth')
    target.load_state_dict(saved.get('state_dict', saved), strict=True)
    x = torch.randn(5, 4)
    assert torch.equal(target.eval()(x), source.eval()(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(strategy='best_macth'), r"Expected a strategy of .* but got 'best_macth'\. Did you mean 'best_match'"),
        (
            dict(weights={'shapes': 1.0}),
            r"Expected weights of shape, name, hierarchy but got 'shapes'\. Did you mean 'shape'",
        ),
        (dict(weights=dict(shape=-1.0)), r'Expected weights of at least 0 and one above but got'),
        (dict(threshold=1.5), r'Expected a threshold in \[0, 1\] but got 1\.5'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightMapper(old(), new()).suggest_mapping(**options)


def test_both_sides_are_needed() -> None:
    with pytest.raises(ConfigError, match='Expected a source and a target module for WeightMapper but got none of one'):
        WeightMapper(old())
    with pytest.raises(ConfigError, match=r'Expected a shape_tolerance in \[0, 1\) but got 1'):
        WeightMapper(old(), new(), shape_tolerance=1)


def test_report_has_the_keys_of_lit_wsl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapper = WeightMapper(old(), net('linear1', 'bn', 'other'))
    mapper.export_mapping_report(tmp_path / 'report.json')
    report = json.loads((tmp_path / 'report.json').read_text())
    assert set(report) == {
        'source_model', 'target_model', 'source_params_count', 'target_params_count', 'matched_count', 'coverage',
        'mappings', 'unmatched_source', 'unmatched_target',
    }  # fmt: skip
    assert set(report['mappings'][0]) == {'source', 'target', 'score', 'shape'}
    assert report['matched_count'] == len(report['mappings'])
    assert report['coverage'] == report['matched_count'] / report['target_params_count']
    scores = [score for *_, score in mapper.get_mapping_with_scores()]
    assert scores == sorted(scores, reverse=True)
    assert mapper.get_mapping_dict() == mapper.plan.mapping
    mapper.print_analysis(top_n=2)
    assert f'{report["matched_count"]} matched' in capsys.readouterr().out


def test_what_is_left_is_listed() -> None:
    target = nn.ModuleDict({'net': new(), 'extra': nn.Linear(2, 2)})
    left = WeightMapper(nn.ModuleDict({'net': old(), 'gone': nn.Linear(9, 9)}), target).get_unmatched()
    assert left == {'source': ['gone.weight', 'gone.bias'], 'target': ['extra.weight', 'extra.bias']}


def test_verify_runs_both_models() -> None:
    mapper = WeightMapper(old().eval(), new().eval())
    before = {name: value.clone() for name, value in mapper.target_module.state_dict().items()}  # type: ignore[union-attr]
    mapper.suggest_mapping(verify=dict(inputs=torch.randn(5, 4)))
    assert mapper.plan.settings['max_output_difference'] == 0.0
    assert 'largest difference between the outputs of both models: 0' in mapper.plan.notes[-1]
    after = mapper.target_module.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(CheckpointError, match='Expected a source module to verify against but got tensors alone'):
        WeightMapper.from_state_dict(old().state_dict(), new()).verify(torch.randn(5, 4))


@pytest.mark.parametrize('bad', [False, True])
def test_models_stay_untouched(bad: bool) -> None:
    source, target = old().train(), new().train()
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (source, target)]
    state = torch.get_rng_state()
    mapper = WeightMapper(source, target, dummy_input=torch.randn(5, 9 if bad else 4))
    torch.set_rng_state(state)
    mapper = WeightMapper(source, target, dummy_input=torch.ones(5, 9 if bad else 4))
    assert mapper.suggest_mapping() == WANTED
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for model in (source, target) for module in model.modules())
    for model, values in zip((source, target), before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    failed = [note for note in mapper.plan.notes if 'could not run on dummy_input' in note]
    assert len(failed) == (2 if bad else 0)


class Twins(nn.Module):
    """Two alike layers that run in the other order than they are defined in, if so asked."""

    def __init__(self, names: tuple[str, str], swapped: bool) -> None:
        super().__init__()
        for name in reversed(names) if swapped else names:
            self.add_module(name, nn.Linear(4, 4))
        self.names = names

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


def test_execution_tells_alike_layers_apart() -> None:
    source, target = Twins(('left', 'right'), False), Twins(('eins', 'zwei'), True)
    mapping = WeightMapper(source, target, dummy_input=torch.randn(2, 4)).suggest_mapping()
    assert mapping['left.weight'] == 'eins.weight'
    assert mapping['right.weight'] == 'zwei.weight'
