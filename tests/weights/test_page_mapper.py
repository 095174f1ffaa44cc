"""The examples of lit-wsl's page on WeightMapper, to a strict ``load_state_dict``.

https://github.com/twsl/lit-wsl, docs/docs/weight_mapper.md: as written there but for imports and file names.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from old_and_new import PICTURE, NewModel, OldModel
from small_nets import fill
from torch import nn

from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.renamer import WeightRenamer


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The folder in which the page's examples run."""
    monkeypatch.chdir(tmp_path)
    old_model = fill(OldModel())
    torch.save(old_model.state_dict(), 'old_model.pth')
    torch.save(old_model.state_dict(), 'old_weights.pth')
    return old_model


def same_outputs(one: nn.Module, two: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(one.eval()(PICTURE), two.eval()(PICTURE))


def test_page_basic_usage(page: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    new_model = NewModel()
    mapper = WeightMapper.from_checkpoint('old_model.pth', new_model)

    mapping = mapper.suggest_mapping(threshold=0.6)
    mapper.print_analysis()

    renamer = WeightRenamer('old_model.pth')
    renamer.rename_keys(mapping)
    renamer.save('adapted_weights.pth')

    new_model.load_state_dict(torch.load('adapted_weights.pth'))
    assert same_outputs(page, new_model)
    assert '16 matched, 100.0%' in capsys.readouterr().out


def test_page_execution_order(page: nn.Module) -> None:
    dummy_input = torch.randn(1, 3, 224, 224)

    new_model = NewModel()
    mapper = WeightMapper.from_checkpoint('old_model.pth', new_model, dummy_input=dummy_input)

    mapping = mapper.suggest_mapping(threshold=0.6)
    assert len(mapping) == 16


@pytest.mark.parametrize('nested', [False, True])
def test_page_from_state_dict(page: nn.Module, nested: bool) -> None:
    if nested:
        torch.save({'epoch': 3, 'state_dict': page.state_dict()}, 'old_model.pth')
    checkpoint = torch.load('old_model.pth')
    if 'state_dict' in checkpoint:
        old_weights = checkpoint['state_dict']
    else:
        old_weights = checkpoint

    new_model = NewModel()
    mapper = WeightMapper.from_state_dict(old_weights, new_model)
    mapping = mapper.suggest_mapping(threshold=0.6)
    mapper.print_analysis()

    renamer = WeightRenamer('old_model.pth')
    renamer.rename_keys(mapping)
    renamer.save('adapted_weights.pth')

    adapted = torch.load('adapted_weights.pth')
    new_model.load_state_dict(adapted['state_dict'] if nested else adapted)  # a checkpoint keeps its other entries
    assert not nested or adapted['epoch'] == 3
    assert same_outputs(page, new_model)


def test_page_two_models(page: nn.Module) -> None:
    old_model, new_model = page, NewModel()
    mapper = WeightMapper(old_model, new_model)
    mapping = mapper.suggest_mapping()
    mapper.print_analysis()

    renamer = WeightRenamer('old_weights.pth')
    renamer.rename_keys(mapping)
    renamer.save('adapted_weights.pth')

    new_model.load_state_dict(torch.load('adapted_weights.pth'))
    assert same_outputs(page, new_model)
    assert mapper.get_mapping_dict() == mapping


def test_page_strategies_weights_scores_and_override(page: nn.Module) -> None:
    mapper = WeightMapper(page, NewModel())
    mapping = mapper.suggest_mapping(strategy='conservative')
    assert min(score for _, _, score in mapper.get_mapping_with_scores()) >= 0.75

    mapping = mapper.suggest_mapping(strategy='shape_only')
    assert mapping['fc.weight'] == 'classifier.weight'

    custom_weights = {'shape': 0.5, 'name': 0.4, 'hierarchy': 0.1}
    mapping = mapper.suggest_mapping(weights=custom_weights)
    assert len(mapping) == 16

    mappings = mapper.get_mapping_with_scores()
    mappings.sort(key=lambda x: x[2], reverse=True)
    low_confidence = [(s, t, score) for s, t, score in mappings if score < 0.7]
    assert len(low_confidence) < 16

    mapping = mapper.get_mapping_dict()
    mapping['old.layer'] = 'new.corrected_layer'
    assert 'old.layer' not in mapper.get_mapping_dict()


def test_page_report(page: nn.Module) -> None:
    mapper = WeightMapper(page, NewModel())
    mapper.export_mapping_report('mapping_report.json')
    report = json.loads(Path('mapping_report.json').read_text())
    assert list(report) == [
        'source_model', 'target_model', 'source_params_count', 'target_params_count', 'matched_count', 'coverage',
        'mappings', 'unmatched_source', 'unmatched_target',
    ]  # fmt: skip
    assert (report['source_model'], report['target_model']) == ('OldModel', 'NewModel')
    assert (report['source_params_count'], report['target_params_count'], report['matched_count']) == (16, 16, 16)
    assert report['coverage'] == 1.0
    assert {tuple(pair) for pair in report['mappings']} == {('source', 'target', 'score', 'shape')}
    found = {pair['source']: (pair['target'], pair['shape']) for pair in report['mappings']}
    assert found['layer2.0.weight'] == ('backbone.stage2.conv.weight', [8, 8, 3, 3])
