"""The mapping benchmark judges by truths that are true: they load strictly and give the source's outputs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import mapping  # noqa: E402
from mapping_pairs import all_pairs  # noqa: E402
from mapping_pairs.base import Case, Pair, fuse, randomise, renamed, split  # noqa: E402
from mapping_pairs.judge import carry_out, judge, score  # noqa: E402
from mapping_pairs.rival import load, mapping_of  # noqa: E402

PAIRS = all_pairs()


HEAVY = (
    'Mask R-CNN',
    'RetinaNet',
    'FCOS',
    'DETR R50',
    'FCN-R50',
    'DeepLabV3',
    'Deformable',
    'Conditional',
    'of its authors',
    'SSD300',
)
"""Detectors and FCN have no tiny form; tests/weights/layouts/test_torchvision_fcn.py says the same of FCN."""


def marked(pair: Pair) -> Any:
    heavy = any(name in pair.name for name in HEAVY)
    return pytest.param(pair, marks=pytest.mark.slow if heavy else (), id=pair.name)


@pytest.mark.parametrize('pair', map(marked, PAIRS.values()))
def test_truths_are_true(pair: Pair) -> None:
    for package in pair.needs:
        pytest.importorskip(package)
    case = Case(pair, tiny=True)
    assert case.wanted.std() > 0.05
    assert case.difference({}) > 0.1
    assert case.difference(case.truth) < 1e-4
    shapes = {name: value.shape for name, value in case.truth.items()}
    assert shapes == {name: case.fresh[name].shape for name in shapes}


def test_what_the_issue_names_is_there() -> None:
    """Sizes of Must show 1: every tensor of the target with a source counts."""
    wanted = ('FCN-R50', 'ViT-B/16 -> HF', 'HF ViT -> timm', 'EVA-02', 'Mask R-CNN', 'Swin-T -> mmdet', 'DETR', 'even')
    assert [text for text in wanted if not any(text in name for name in PAIRS)] == []
    assert len({pair.name for pair in PAIRS.values()}) == len(PAIRS) >= 30


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))


TWINS = Pair('twins', lambda tiny: (two_layers(), two_layers(), torch.randn(3, 4)), dict, refusable=r'2\.weight')


@pytest.fixture
def twins() -> Case:
    """Two equal models, where 2.weight may be refused."""
    return Case(TWINS)


def test_score_counts_the_truth_as_right(twins: Case) -> None:
    verdict = score(twins, twins.truth)
    assert (verdict['tensors'], verdict['right']) == (9, 9)
    assert verdict['wrong'] == verdict['refused'] == verdict['missing'] == []


def test_score_counts_swapped_tensors_as_wrong(twins: Case) -> None:
    swapped = {**twins.truth, '0.weight': twins.truth['2.weight'], '2.weight': twins.truth['0.weight']}
    verdict = score(twins, swapped)
    assert verdict['right'] == 7
    assert verdict['wrong'] == ['0.weight', '2.weight']
    assert twins.difference(swapped) > 1e-2


def test_score_allows_only_refusals_that_cannot_be_known(twins: Case) -> None:
    rest = {name: value for name, value in twins.truth.items() if not name.endswith('.weight')}
    verdict = score(twins, rest, refused=['0.weight', '2.weight'])
    assert verdict['right'] == 7
    assert (verdict['refused'], verdict['permitted_refusals']) == (['0.weight'], ['2.weight'])
    assert verdict['missing'] == ['1.weight']


def test_a_bare_state_dict_allows_more_refusals() -> None:
    case = Case(replace(TWINS, refusable_bare=r'0\.weight'))
    rest = {name: value for name, value in case.truth.items() if name != '0.weight'}
    assert score(case, rest, refused=['0.weight'], bare=True)['right'] == 9
    assert score(case, rest, refused=['0.weight'])['refused'] == ['0.weight']


def test_score_takes_one_bit_for_wrong(twins: Case) -> None:
    near = twins.truth['0.weight'].clone()
    near[0, 0] += 1e-6
    assert score(twins, {**twins.truth, '0.weight': near})['wrong'] == ['0.weight']
    double = {name: value.double() for name, value in twins.truth.items() if name == '0.bias'}
    assert score(twins, {**twins.truth, **double})['wrong'] == ['0.bias']


def test_free_values_are_not_compared() -> None:
    def with_free_row(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**state, '0.bias': torch.cat([torch.full((1,), torch.nan), state['0.bias'][1:]])}

    case = Case(replace(TWINS, truth=with_free_row))
    other = case.state['0.bias'].clone()
    other[0] = 5
    assert score(case, {**case.truth, '0.bias': other})['right'] == 9
    other[1] = 5
    assert score(case, {**case.truth, '0.bias': other})['wrong'] == ['0.bias']


def test_a_mapping_moves_whole_tensors_that_fit(twins: Case) -> None:
    applied, refused = carry_out(twins, {'0.weight': '2.weight', '0.bias': '0.weight', 'unknown': '0.bias'})
    assert list(applied) == ['2.weight']
    assert torch.equal(applied['2.weight'], twins.state['0.weight'])
    assert refused == []


def test_judge_sees_names_that_the_source_lacks(twins: Case) -> None:
    assert judge(twins, lambda: {'0.weight': '0.weight', 'x.weight': '2.weight'})['unknown_names'] == ['x.weight']


def test_judge_sees_a_mapper_that_changes_the_models(twins: Case) -> None:
    def find() -> dict[str, str]:
        twins.source[0].weight.data.add_(1)  # type: ignore[operator, union-attr]
        twins.target.train()
        return {name: name for name in twins.truth}

    assert judge(twins, find)['changed'] == ['source 0.weight', 'target training']


def test_by_value_pairs_are_not_credited_for_what_the_target_held() -> None:
    case = Case(replace(TWINS, by_values=True))
    assert all(torch.equal(value, case.truth[name]) for name, value in case.target.state_dict().items())
    assert case.difference({}) > 1e-2
    assert all(torch.equal(value, case.truth[name]) for name, value in case.target.state_dict().items())
    assert score(case, {})['right'] == 0


def test_no_two_source_tensors_agree() -> None:
    model = two_layers()
    randomise(model, seed=0)
    values = [value.double().flatten()[0].item() for value in model.state_dict().values()]
    assert len(set(values)) == len(values)
    assert model[1].running_var.min() > 0  # type: ignore[operator, union-attr]


def test_split_and_fuse_are_inverse() -> None:
    state = {'a.qkv.weight': torch.arange(12.0).view(6, 2), 'a.proj.weight': torch.zeros(2, 2)}
    parts = split(state, r'\bqkv\b', ('q_proj', 'k_proj', 'v_proj'))
    assert torch.equal(parts['a.k_proj.weight'], torch.tensor([[4.0, 5], [6, 7]]))
    shuffled = {name: parts[name] for name in ('a.v_proj.weight', 'a.k_proj.weight', 'a.q_proj.weight')}
    assert torch.equal(fuse(shuffled, r'\b([qkv])_proj\b', 'qkv')['a.qkv.weight'], state['a.qkv.weight'])


def test_rules_that_merge_names_are_refused() -> None:
    with pytest.raises(ValueError, match='Expected names of their own after the rules but got some twice'):
        renamed({'a': torch.zeros(1), 'b': torch.zeros(1)}, ('b', 'a'))


RIVAL = """
class WeightMapper:
    def __init__(self, source_module=None, target_module=None, dummy_input=None):
        self.names = list(source_module.state_dict())
    def suggest_mapping(self):
        return {name: name for name in self.names[:2]}
"""


def test_a_rival_is_asked_from_its_own_folder(tmp_path: Path, twins: Case) -> None:
    module = tmp_path / 'src' / 'lit_wsl' / 'models' / 'weight_mapper.py'
    module.parent.mkdir(parents=True)
    module.write_text(RIVAL)
    found = mapping_of(load(tmp_path), twins.source, twins.target)
    assert found == {'0.weight': '0.weight', '0.bias': '0.bias'}
    assert str(tmp_path / 'src') not in sys.path
    with pytest.raises(SystemExit, match=r'Expected a checkout of lit_wsl but .*nowhere has no lit_wsl'):
        load(tmp_path / 'nowhere')


def test_the_tool_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'mapping.json'
    assert mapping.main(['--tiny', '--pairs', 'counted from one', '--ways', 'state dict', '--json', str(out)]) == 0
    text = capsys.readouterr().out
    assert 'Right tensors by how the mapper is asked' in text
    row = json.loads(out.read_text())['pairs'][0]
    assert {'name', 'tensors', 'right', 'lit_wsl_right', 'max_output_difference', 'seconds'} <= row.keys()
    assert (row['name'], row['tensors'], row['right']) == ('blocks counted from one', 44, 44)
    assert row['max_output_difference'] < 1e-4
    assert row['ways']['state dict']['changed'] == []


def test_results_join_those_of_an_earlier_run(tmp_path: Path) -> None:
    first, second = list(PAIRS)[:2]
    path = tmp_path / 'mapping.json'
    old = [
        {'name': name, 'tensors': 3, 'right': 1, 'lit_wsl_right': 2, 'lit_wsl': {'a': 2}} for name in (first, second)
    ]
    path.write_text(json.dumps({'pairs': old, 'scale': 'kept'}))
    new = {'name': second, 'tensors': 3, 'right': 3, 'lit_wsl_right': None, 'lit_wsl': {}}
    result = mapping.merged(path, {'pairs': [new]})
    assert [row['right'] for row in result['pairs']] == [1, 3]
    assert (result['pairs'][1]['lit_wsl_right'], result['scale']) == (2, 'kept')


def test_a_mapper_that_fails_gets_nothing_right(monkeypatch: pytest.MonkeyPatch, twins: Case) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError('no answer')

    monkeypatch.setattr(mapping, 'plan_of', fail)
    rows = mapping.our_rows(twins, ['modules', 'untrained'], tiny=True)
    assert {way: (row['right'], row['error']) for way, row in rows.items()} == {
        'modules': (0, 'RuntimeError: no answer'),
        'untrained': (0, 'RuntimeError: no answer'),
    }
