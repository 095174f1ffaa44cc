"""WeightMapper: every strategy, reports, verification, and models left as they were."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from old_and_new import PICTURE, NewModel, OldModel
from safetensors.torch import save_file
from small_nets import Vit, fill
from torch import Tensor, nn
from two_vits import IMAGE, FusedVit, SplitVit, by_hand

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.mapper import CONSERVATIVE, STRATEGIES, WeightMapper
from kdplugin.weights.plan import ProjectionPlan


@pytest.fixture
def old_model() -> nn.Module:
    return fill(OldModel())


def state_of(mapper: WeightMapper) -> dict[str, Tensor]:
    return apply_plan(mapper.plan, mapper.source).tensors


@pytest.mark.parametrize('strategy', ['best_match', 'conservative'])
@pytest.mark.parametrize('way', ['modules', 'state dict', 'inputs'])
def test_split_to_fused_strictly(strategy: str, way: str) -> None:
    source, target = fill(SplitVit()), FusedVit()
    mapper = {
        'modules': lambda: WeightMapper(source, target),
        'state dict': lambda: WeightMapper.from_state_dict(source.state_dict(), target),
        'inputs': lambda: WeightMapper(source, target, dummy_input=IMAGE),
    }[way]()
    mapping = mapper.suggest_mapping(strategy=strategy)
    wanted, got = by_hand(source), state_of(mapper)
    assert all(torch.equal(value, wanted[name]) for name, value in got.items())
    if strategy == 'best_match':
        target.load_state_dict(got)
        assert len(got) == len(wanted)
    assert 'encoder.layer.0.attention.attention.query.weight' not in mapping
    assert all(entry.score >= CONSERVATIVE for entry in mapper.plan.entries if strategy != 'best_match' and entry.loads)


def test_a_conservative_threshold_is_a_floor() -> None:
    mapper = WeightMapper(fill(OldModel()), NewModel())
    mapper.suggest_mapping(threshold=0.2, strategy='conservative')
    assert mapper.plan.settings['threshold'] == 0.75
    mapper.suggest_mapping(threshold=0.9, strategy='conservative')
    assert mapper.plan.settings['threshold'] == 0.9


def test_shape_only_pairs_equal_shapes_in_order_and_ignores_names() -> None:
    source = {'a': torch.zeros(3), 'b': torch.ones(3), 'c': torch.ones(2, 3)}
    target = nn.Module()
    for name, shape in {'b': (3,), 'x': (2, 3), 'a': (3,), 'y': (9,)}.items():
        target.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    mapper = WeightMapper.from_state_dict(source, target)
    assert mapper.suggest_mapping(strategy='shape_only') == {'a': 'b', 'b': 'a', 'c': 'x'}
    assert mapper.get_unmatched() == {'source': [], 'target': ['y']}
    assert mapper.plan['y'].reason == 'no source tensor of this shape is left'


def test_the_report_is_written_as_json(tmp_path: Path, old_model: nn.Module) -> None:
    mapper = WeightMapper(old_model, NewModel())
    mapper.export_mapping_report(tmp_path / 'report.json')
    report = json.loads((tmp_path / 'report.json').read_text())
    assert (report['matched_count'], report['coverage'], len(report['mappings'])) == (16, 1.0, 16)


def test_what_is_left_has_names_on_both_sides() -> None:
    mapper = WeightMapper(
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 9)), nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 5))
    )
    assert mapper.suggest_mapping() == {'0.weight': '0.weight', '0.bias': '0.bias'}
    assert mapper.get_unmatched() == {'source': ['1.weight', '1.bias'], 'target': ['1.weight', '1.bias']}
    assert mapper.plan.unused == dict.fromkeys(('1.weight', '1.bias'), 'no target tensor takes it')


def test_scores_come_best_first_and_weights_change_them() -> None:
    mapper = WeightMapper(fill(OldModel()), NewModel())
    mapper.suggest_mapping()
    scores = [score for _, _, score in mapper.get_mapping_with_scores()]
    assert scores == sorted(scores, reverse=True)
    mapper.suggest_mapping(weights={'name': 0.0, 'hierarchy': 0.0})
    assert {score for _, _, score in mapper.get_mapping_with_scores()} == {1.0}


def test_the_same_models_give_the_same_plan_and_it_goes_to_json_and_back() -> None:
    plans = []
    for _ in range(2):
        mapper = WeightMapper(fill(SplitVit()), fill(FusedVit(), 1), dummy_input=IMAGE)
        mapper.suggest_mapping()
        plans.append(mapper.plan)
    assert plans[0] == plans[1] == ProjectionPlan.from_json(plans[0].to_json())


def test_the_plan_is_made_with_defaults_when_it_is_asked_for() -> None:
    mapper = WeightMapper(fill(OldModel()), NewModel())
    assert mapper.plan.settings == {
        'threshold': 0.6,
        'strategy': 'best_match',
        'weights': {'shape': 0.5, 'name': 0.3, 'hierarchy': 0.2},
        'layers': 'uniform',
    }
    assert len(mapper.get_mapping_dict()) == 16


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            {'strategy': 'best_mach'},
            r"Expected a strategy of best_match, conservative, shape_only but got 'best_mach'\. "
            r"Did you mean 'best_match'\? Name one of them\.",
        ),
        (
            {'weights': {'names': 0.4}},
            r"Expected weights of shape, name, hierarchy but got 'names'\. Did you mean 'name'\? Correct the key\.",
        ),
        ({'weights': {'name': -1.0}}, r'Expected weights of at least 0 and one above but got .* Correct them\.'),
        (
            {'weights': dict.fromkeys(('shape', 'name', 'hierarchy'), 0)},
            r'Expected weights of at least 0 and one above',
        ),
        ({'threshold': 1.5}, r'Expected a threshold in \[0, 1\] but got 1\.5\. Give for example 0\.6\.'),
        ({'threshold': 60}, r'Expected a threshold in \[0, 1\] but got 60\.'),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightMapper(OldModel(), NewModel()).suggest_mapping(**arguments)


def test_both_sides_are_needed() -> None:
    message = r'Expected a source and a target module for WeightMapper but got .* Give both, or use WeightMapper'
    for modules in ((OldModel(), None), (None, NewModel()), (None, None)):
        with pytest.raises(ConfigError, match=message):
            WeightMapper(*modules)
    with pytest.raises(
        ConfigError, match=r'Expected a shape_tolerance in \[0, 1\) but got 1\.0\. Give for example 0\.5'
    ):
        WeightMapper(OldModel(), NewModel(), 1.0)


def test_a_tolerance_lets_other_widths_through_as_projected() -> None:
    mapper = WeightMapper(Vit(), Vit(width=28, heads=4, size=7, hidden=48), shape_tolerance=0.2)
    mapper.suggest_mapping()
    kinds = {entry.kind for entry in mapper.plan.entries}
    assert kinds == {'projected', 'exact'}
    strict = WeightMapper(Vit(), Vit(width=28, heads=4, size=7, hidden=48))
    assert not [entry for entry in strict.plan.entries if entry.kind == 'projected']


# Files.


def saved_as(folder: Path, kind: str, state: dict[str, Tensor]) -> Path:
    path = folder / ('old.safetensors' if kind == 'safetensors' else 'old.ckpt' if kind == 'lightning' else 'old.pth')
    if kind == 'safetensors':
        save_file(state, path)
    elif kind == 'lightning':
        torch.save(
            {
                'epoch': 1,
                'global_step': 10,
                'pytorch-lightning_version': '2.5.0',
                'state_dict': {f'model.{name}': value for name, value in state.items()},
                'loops': {},
                'hyper_parameters': {'lr': 0.1},
                'optimizer_states': [{'state': {}, 'param_groups': []}],
            },
            path,
        )
    else:
        torch.save({f'module.{name}': value for name, value in state.items()} if kind == 'ddp' else state, path)
    return path


@pytest.mark.parametrize('kind', ['pth', 'safetensors', 'lightning', 'ddp'])
def test_files(tmp_path: Path, kind: str) -> None:
    """safetensors lists names alphabetically: numbers come by value, and the order is not that of definition."""
    source, target = fill(SplitVit(depth=12)), FusedVit(depth=12)
    path = saved_as(tmp_path, kind, source.state_dict())
    mapper = WeightMapper.from_checkpoint(path, target)
    mapper.suggest_mapping()
    got, wanted = state_of(mapper), by_hand(source)
    target.load_state_dict(got)
    assert all(torch.equal(value, wanted[name]) for name, value in got.items())
    assert mapper.plan.source == str(path)


@pytest.mark.parametrize('given', ['state dict', 'checkpoint', 'module'])
def test_names_are_those_of_what_was_given(old_model: nn.Module, given: str) -> None:
    """A dict from DistributedDataParallel: every key of the answer is one of its own."""
    wrapped = nn.Module()
    wrapped.add_module('module', old_model)
    state = wrapped.state_dict()
    if given == 'module':
        mapper = WeightMapper(wrapped, NewModel())
    else:
        whole: dict[str, Any] = state if given == 'state dict' else {'state_dict': state}
        mapper = WeightMapper.from_state_dict(whole, NewModel())
    mapping = mapper.suggest_mapping()
    assert set(mapping) == set(state)
    assert mapper.get_mapping_dict() == mapping == {a: b for a, b, _ in mapper.get_mapping_with_scores()}
    assert {f'module.{name}': target for name, target in mapper.plan.mapping.items()} == mapping
    target = NewModel()
    target.load_state_dict({new: state[old] for old, new in mapping.items()})
    assert len(target.state_dict()) == len(mapping)


def test_what_is_left_has_the_names_that_were_given(old_model: nn.Module) -> None:
    state = {f'module.{name}': value for name, value in old_model.state_dict().items()}
    mapper = WeightMapper.from_state_dict({**state, 'module.extra.weight': torch.zeros(77, 5)}, NewModel())
    assert mapper.get_unmatched()['source'] == ['module.extra.weight']


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'old\.pth does not exist'):
        WeightMapper.from_checkpoint(tmp_path / 'old.pth', NewModel())


# Observation.


def traces(model: nn.Module) -> list[Any]:
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [id(value) for value in (*model.parameters(), *model.buffers())],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [value.requires_grad for value in model.parameters()],
        [value.grad for value in model.parameters()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    ]


def same_traces(one: list[Any], two: list[Any]) -> bool:
    return all(torch.equal(value, two[0][name]) for name, value in one[0].items()) and one[1:] == two[1:]


def test_models_are_left_as_they_were(old_model: nn.Module) -> None:
    """In train mode a forward pass would move BatchNorm's statistics."""
    new_model = NewModel().train()
    old_model.train()
    new_model.classifier.weight.requires_grad_(False)
    before = traces(old_model), traces(new_model)
    mapper = WeightMapper(old_model, new_model, dummy_input=PICTURE)
    mapper.suggest_mapping(verify=dict(inputs=PICTURE))
    after = traces(old_model), traces(new_model)
    assert same_traces(before[0], after[0])
    assert same_traces(before[1], after[1])


def test_the_order_of_execution_decides_where_names_and_definition_mislead() -> None:
    class Named(nn.Module):
        def __init__(self, names: list[str], runs: list[str]) -> None:
            super().__init__()
            self.runs = runs
            for name in names:
                self.add_module(name, nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            for name in self.runs:
                x = self.get_submodule(name)(x).tanh()
            return x

    source = fill(Named(['a', 'b', 'c'], ['a', 'b', 'c']))
    target = Named(['z', 'x', 'y'], ['x', 'y', 'z'])
    x = torch.randn(2, 4)
    mapper = WeightMapper(source, target, dummy_input=x)
    mapper.suggest_mapping(verify=dict(inputs=x))
    assert mapper.plan.settings['max_output_difference'] == 0.0
    assert mapper.plan['x.weight'].sources == ('a.weight',)


@pytest.mark.parametrize('inputs', [PICTURE, (PICTURE,), {'x': PICTURE}])
def test_inputs_may_be_a_tensor_a_tuple_or_a_dict(inputs: Any) -> None:
    mapper = WeightMapper(fill(OldModel()), NewModel(), dummy_input=inputs)
    assert len(mapper.suggest_mapping(verify=dict(inputs=inputs))) == 16
    assert mapper.plan.settings['max_output_difference'] == 0.0
    assert not [note for note in mapper.plan.notes if 'could not run' in note]


def test_an_order_that_most_layers_have_no_part_in_is_none(old_model: nn.Module) -> None:
    """A model that computes with its layers' tensors, not with the layers, tells no order."""

    class Functional(OldModel):
        def forward(self, x: Tensor) -> Tensor:
            return torch.func.functional_call(OldModel(), dict(self.state_dict()), x)

    source = fill(Functional())
    mapper = WeightMapper(source, NewModel(), dummy_input=PICTURE)
    assert mapper.suggest_mapping() == WeightMapper(old_model, NewModel()).suggest_mapping()
    assert mapper.plan.notes[0].startswith('Functional ran on dummy_input without 5 of its 5 layers: the order of its')


def test_a_failed_forward_falls_back_and_says_so(old_model: nn.Module) -> None:
    old_model.train()
    new_model, wrong = NewModel(), torch.randn(1, 4, 6, 6)
    before = traces(old_model)
    mapper = WeightMapper(old_model, new_model, dummy_input=wrong)
    assert len(mapper.suggest_mapping()) == 16
    notes = [note for note in mapper.plan.notes if 'could not run on dummy_input' in note]
    assert [note.split()[0] for note in notes] == ['OldModel', 'NewModel']
    assert 'RuntimeError' in notes[0]
    assert notes[0].endswith('the order of its tensors stands in for the order of execution')
    assert same_traces(before, traces(old_model))


def right(mapper: WeightMapper, wanted: dict[str, Tensor]) -> int:
    mapper.suggest_mapping()
    return sum(torch.equal(value, wanted[name]) for name, value in state_of(mapper).items())


@pytest.mark.parametrize(
    ('make', 'wanted', 'inputs'),
    [
        (lambda: (fill(SplitVit()), FusedVit()), by_hand, IMAGE),
        (lambda: (fill(SplitVit(bias='qv')), FusedVit(bias='qv')), by_hand, IMAGE),
        (lambda: (fill(OldModel()), OldModel()), lambda model: model.state_dict(), PICTURE),
        (
            lambda: (fill(OldModel()), NewModel()),
            lambda model: dict(
                zip(
                    (k for k in sorted(NewModel().state_dict(), key=lambda k: k.startswith('cl'))),
                    model.state_dict().values(),
                    strict=True,
                )
            ),
            PICTURE,
        ),
        (lambda: (fill(FusedVit(depth=4)), FusedVit(depth=4)), lambda model: model.state_dict(), IMAGE),
    ],
    ids=['split to fused', 'without the bias of k', 'itself', 'renamed', 'deeper'],
)
def test_never_fewer_right_with_dummy_input(
    make: Callable[[], tuple[nn.Module, nn.Module]],
    wanted: Callable[[nn.Module], dict[str, Tensor]],
    inputs: Tensor,
) -> None:
    source, target = make()
    values = wanted(source)
    counts = [
        right(WeightMapper(source, target, dummy_input=given), values) for given in (None, inputs, torch.zeros(1))
    ]
    state = source.state_dict()
    counts += [
        right(WeightMapper.from_state_dict(state, target, dummy_input=given), values) for given in (None, inputs)
    ]
    assert counts == [len(values)] * 5


# Verification.


def test_verify_is_zero_for_an_identical_pair(old_model: nn.Module) -> None:
    mapper = WeightMapper(old_model, OldModel())
    mapper.suggest_mapping(verify=dict(inputs=PICTURE))
    assert mapper.plan.settings['max_output_difference'] == 0.0
    assert mapper.plan.notes[-1] == 'largest difference between the outputs of both models: 0'


def test_verify_is_the_true_difference(old_model: nn.Module) -> None:
    """The target subtracts 3 from what the source gives."""

    class Shifted(OldModel):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) - 3

    target = Shifted()
    mapper = WeightMapper(old_model, target)
    assert mapper.verify(PICTURE) == pytest.approx(3.0, abs=1e-5)
    mapper.suggest_mapping(verify=dict(inputs=PICTURE))
    assert mapper.plan.settings['max_output_difference'] == pytest.approx(3.0, abs=1e-5)


def test_what_the_plan_leaves_out_counts_with_the_targets_own_values(old_model: nn.Module) -> None:
    target = fill(OldModel(), 1)
    mapper = WeightMapper(old_model, target)
    mapper.suggest_mapping(threshold=1.0, weights={'shape': 0.0, 'hierarchy': 0.0})
    kept = {entry.target for entry in mapper.plan.entries if not entry.loads}
    mixed = fill(OldModel(), 1)
    mixed.load_state_dict(old_model.state_dict() | {name: target.state_dict()[name] for name in kept})
    with torch.no_grad():
        expected = (mixed(PICTURE) - old_model(PICTURE)).abs().max().item()
    assert mapper.verify(PICTURE) == pytest.approx(expected, abs=1e-6)


def test_verify_needs_a_source_module(old_model: nn.Module) -> None:
    mapper = WeightMapper.from_state_dict(old_model.state_dict(), OldModel())
    with pytest.raises(
        CheckpointError, match=r'Expected a source module to verify against but got tensors alone\. Give'
    ):
        mapper.suggest_mapping(verify=dict(inputs=PICTURE))


def test_the_target_has_its_values_again_when_the_forward_raises(old_model: nn.Module) -> None:
    target = OldModel()
    before = traces(target)
    with pytest.raises(RuntimeError):
        WeightMapper(old_model, target).verify(torch.zeros(1, 4, 6, 6))
    assert same_traces(before, traces(target))


def test_strategies_are_those_of_the_seed() -> None:
    assert STRATEGIES == ('best_match', 'conservative', 'shape_only')
