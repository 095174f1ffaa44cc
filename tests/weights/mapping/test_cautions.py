"""What could be wrong though shapes agree is settled by watching, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from small_nets import fill
from torch import Tensor, nn

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.mapping.cautions import near_misses, refused, with_cautions
from kdplugin.weights.plan import Entry, Piece
from kdplugin.weights.units import build_units

Shapes = Mapping[str, tuple[int, ...]]
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Merging(nn.Module):
    def __init__(self, order: tuple[int, ...], channels: int, norm: str, linear: str) -> None:
        super().__init__()
        self.order = order
        self.add_module(norm, nn.LayerNorm(4 * channels))
        self.add_module(linear, nn.Linear(4 * channels, 2 * channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, CORNERS[i][0] :: 2, CORNERS[i][1] :: 2] for i in self.order]
        norm, reduction = self.children()
        return reduction(norm(torch.cat(parts, -1)))


class Stages(nn.Module):
    """Maps [N, H, W, 4] through two stages with a patch merging each, to 5 scores."""

    def __init__(self, order: tuple[int, ...], names: tuple[str, str, str, str, str]) -> None:
        super().__init__()
        stem, stages, down, norm, linear = names
        self.add_module(stem, nn.Linear(4, 4))
        parts = [
            nn.ModuleDict({down: Merging(order, width, norm, linear), 'fc': nn.Linear(2 * width, 2 * width)})
            for width in (4, 8)
        ]
        self.add_module(stages, nn.ModuleList(parts))
        self.names = names

    def forward(self, x: Tensor) -> Tensor:
        stem, stages, down, *_ = self.names
        x = self.get_submodule(stem)(x)
        for stage in self.get_submodule(stages):
            x = stage['fc'](stage[down](x)).relu()
        return x.mean((1, 2))


ONE = ('stem', 'layers', 'downsample', 'norm', 'reduction')
TWO = ('patch_embed', 'stages', 'downsample', 'ln', 'reduction')
MAPS = torch.randn(2, 8, 8, 4, generator=torch.Generator().manual_seed(0))


def outputs_agree(source: nn.Module, target: nn.Module) -> bool:
    with torch.no_grad():
        return torch.allclose(source.eval()(MAPS), target.eval()(MAPS), atol=1e-5)


def test_patches_that_merge_in_another_order_are_put_in_order() -> None:
    source, target = fill(Stages((0, 1, 2, 3), ONE)), Stages((0, 2, 1, 3), TWO)
    mapper = WeightMapper(source, target)
    mapper.suggest_mapping()
    target.load_state_dict(apply_plan(mapper.plan, source.state_dict()).tensors)
    assert outputs_agree(source, target)
    entry = mapper.plan['stages.1.downsample.reduction.weight']
    assert (entry.kind, entry.reason) == ('converted', 'patches merge in another order: observed')
    assert entry.pieces[0].steps[0].args['indices'][8:16] == list(range(16, 24))


def test_patches_that_merge_in_the_same_order_stay() -> None:
    source, target = fill(Stages((0, 2, 1, 3), ONE)), Stages((0, 2, 1, 3), TWO)
    mapper = WeightMapper(source, target)
    mapper.suggest_mapping()
    target.load_state_dict(apply_plan(mapper.plan, source.state_dict()).tensors)
    assert outputs_agree(source, target)
    assert mapper.plan['stages.0.downsample.ln.weight'].kind == 'renamed'


def test_without_a_module_to_watch_the_order_is_refused_by_name() -> None:
    source, target = fill(Stages((0, 1, 2, 3), ONE)), Stages((0, 2, 1, 3), TWO)
    mapper = WeightMapper.from_state_dict(source.state_dict(), target)
    mapper.suggest_mapping()
    left = [entry for entry in mapper.plan.entries if not entry.loads]
    assert [entry.target for entry in left] == [
        f'stages.{i}.downsample.{name}' for i in (0, 1) for name in ('ln.weight', 'ln.bias', 'reduction.weight')
    ]
    assert {entry.kind for entry in left} == {'refused'}
    assert left[0].alternatives == ('layers.0.downsample.norm.weight',)
    assert 'the order in which 2x2 patches are merged differs between libraries' in left[0].reason


def test_merging_layers_of_the_same_names_are_taken_to_be_the_same() -> None:
    source, target = fill(Stages((0, 1, 2, 3), ONE)), Stages((0, 1, 2, 3), ONE)
    mapper = WeightMapper.from_state_dict(source.state_dict(), target)
    mapper.suggest_mapping()
    assert {entry.kind for entry in mapper.plan.entries} == {'exact'}


def test_equal_names_do_not_hide_another_order_where_it_can_be_watched() -> None:
    source, target = fill(Stages((0, 1, 2, 3), ONE)), Stages((0, 2, 1, 3), ONE)
    mapper = WeightMapper(source, target)
    mapper.suggest_mapping()
    target.load_state_dict(apply_plan(mapper.plan, source.state_dict()).tensors)
    assert outputs_agree(source, target)


def test_the_name_of_either_side_says_that_patches_merge() -> None:
    source, target = fill(Stages((0, 1, 2, 3), ONE)), Stages((0, 2, 1, 3), ('stem', 'layers', 'merge2x2', 'ln', 'fc'))
    mapper = WeightMapper.from_state_dict(source.state_dict(), target)
    mapper.suggest_mapping()
    assert [entry.kind for entry in mapper.plan.entries if 'merge2x2' in entry.target] == ['refused'] * 6


def class_scores(boxes: tuple[int, int]) -> tuple[list[Entry], tuple[Shapes, Shapes]]:
    shapes = tuple(
        {f'{head}.{cls}.weight': (5, 8), f'{head}.{cls}.bias': (5,), f'{head}.{reg}.weight': (rows, 8)}
        for head, cls, reg, rows in (('p', 'cls_score', 'bbox_pred', boxes[0]), ('h', 'fc_cls', 'fc_reg', boxes[1]))
    )
    names = [('p.cls_score.weight', 'h.fc_cls.weight'), ('p.cls_score.bias', 'h.fc_cls.bias')]
    return [Entry(new, shapes[1][new], 'renamed', (Piece(old),)) for old, new in names], shapes  # type: ignore[return-value]


def test_class_scores_are_refused_where_the_background_has_a_box_on_one_side_alone() -> None:
    """5 scores with 5 boxes (torchvision: the background is the first) beside 5 scores with 4 (mmdet: the last)."""
    entries, shapes = class_scores((20, 16))
    changed = with_cautions(entries, shapes, lambda side, norm: None)
    assert [(entry.kind, entry.alternatives) for entry in changed] == [
        ('refused', ('p.cls_score.weight',)),
        ('refused', ('p.cls_score.bias',)),
    ]
    assert changed[0].reason.startswith('the background has a box on one side alone')


@pytest.mark.parametrize('boxes', [(20, 20), (16, 16), (4, 16)])
def test_class_scores_beside_the_same_boxes_stay(boxes: tuple[int, int]) -> None:
    entries, shapes = class_scores(boxes)
    assert with_cautions(entries, shapes, lambda side, norm: None) == entries


def test_a_refused_entry_names_its_candidates_and_loads_nothing() -> None:
    entry = refused(Entry('x', (4,), 'converted', (Piece('a'), Piece('b')), 0), 'who knows')
    assert (entry.kind, entry.pieces, entry.join, entry.margin) == ('refused', (), None, 0.0)
    assert (entry.alternatives, entry.reason) == (('a', 'b'), 'who knows')


def missed(source: Shapes, target: Shapes) -> dict[str, Entry]:
    entries = [Entry(name, shape, 'random', reason='nothing fits') for name, shape in target.items()]
    changed = near_misses(entries, (build_units(source), build_units(target)), {})
    return {entry.target: entry for entry in changed if entry.kind == 'refused'}


def test_heads_of_other_class_counts_are_refused_by_name() -> None:
    source = {'fc.weight': (1000, 8), 'fc.bias': (1000,)}
    found = missed(source, {'head.weight': (10, 8), 'head.bias': (10,)})
    assert {name: entry.alternatives for name, entry in found.items()} == {
        'head.weight': ('fc.weight',), 'head.bias': ('fc.bias',),
    }  # fmt: skip
    assert found['head.weight'].reason == 'fc.weight may be meant, but its shape is (1000, 8)'


def test_of_several_heads_the_one_of_the_like_name_is_meant() -> None:
    source = {'roi.cls_score.weight': (91, 8), 'roi.bbox_pred.weight': (364, 8)}
    found = missed(source, {'head.fc_cls.weight': (3, 8), 'head.fc_reg.weight': (12, 8), 'other.weight': (7, 8)})
    assert {name: entry.alternatives for name, entry in found.items()} == {
        'head.fc_cls.weight': ('roi.cls_score.weight',), 'head.fc_reg.weight': ('roi.bbox_pred.weight',),
    }  # fmt: skip


def test_a_patch_embedding_that_is_flattened_is_refused_by_name() -> None:
    found = missed({'patch.weight': (16, 48)}, {'embed.weight': (16, 3, 4, 4)})
    assert found['embed.weight'].alternatives == ('patch.weight',)
    assert not missed({'patch.weight': (16, 49)}, {'embed.weight': (16, 3, 4, 4)})


def test_other_inputs_are_nothing_alike() -> None:
    assert not missed({'fc.weight': (10, 9)}, {'head.weight': (10, 8)})
    assert not missed({}, {'head.weight': (10, 8)})


def test_a_head_of_other_classes_is_refused_in_a_whole_model() -> None:
    source = nn.ModuleDict({'body': nn.Linear(3, 8), 'fc': nn.Linear(8, 20)})
    target = nn.ModuleDict({'backbone': nn.Linear(3, 8), 'head': nn.Linear(8, 5)})
    mapper = WeightMapper(source, target)
    assert mapper.suggest_mapping() == {'body.weight': 'backbone.weight', 'body.bias': 'backbone.bias'}
    assert {entry.target: entry.kind for entry in mapper.plan.entries if not entry.loads} == {
        'head.weight': 'refused', 'head.bias': 'refused',
    }  # fmt: skip


SPLIT = {f'a.{part}_proj.weight': (6, 6) for part in 'qkv'} | {'a.out.weight': (6, 6)}


@pytest.mark.parametrize('name', ['query_key_value', 'in_proj'])
@pytest.mark.parametrize('turned', [False, True])
def test_attention_that_may_be_fused_head_by_head_is_refused_beside_another_layout(name: str, turned: bool) -> None:
    fused = {f'b.{name}.weight': (18, 6), 'b.out.weight': (6, 6)}
    found = planned(*((fused, SPLIT) if turned else (SPLIT, fused)))
    refusals = {target for target, entry in found.items() if entry.kind == 'refused'}
    assert refusals == {target for target in found if 'out' not in target}
    assert all('head by head' in found[target].reason for target in refusals)


def test_attention_fused_under_the_same_name_is_copied() -> None:
    """Bloom and GPT-NeoX both keep it head by head; torch's parameter has q, k and v in order everywhere."""
    same = planned({'b.query_key_value.weight': (18, 6)}, {'c.query_key_value.weight': (18, 6)})
    assert same['c.query_key_value.weight'].operation == 'copy'
    torchs = planned({'b.in_proj_weight': (18, 6)}, {'c.qkv.weight': (18, 6)})
    assert torchs['c.qkv.weight'].operation == 'copy'


def planned(source: Shapes, target: Shapes) -> dict[str, Entry]:
    """Return the whole plan of two sets of shapes, values that say nothing."""
    module = nn.Module()
    for name, shape in target.items():
        *path, leaf = name.split('.')
        place = module
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(leaf, nn.Parameter(torch.zeros(shape)))
    mapper = WeightMapper.from_state_dict({name: torch.zeros(shape) for name, shape in source.items()}, module)
    return {entry.target: entry for entry in mapper.plan.entries}


def branch(kernel: int) -> nn.Module:
    """Return a small net with a convolution and its norm in one module, like DeepLab's projection."""
    last = nn.ModuleDict({'conv': nn.Conv2d(4, 4, kernel, bias=False), 'bn': nn.BatchNorm2d(4)})
    return nn.ModuleDict({'stem': nn.Conv2d(3, 4, 3), 'last': last})


def test_statistics_without_their_convolution_are_refused() -> None:
    plan = WeightMapper(branch(1), branch(3)).plan
    lost = {entry.target: entry for entry in plan.entries if not entry.loads}
    assert {name for name in lost if 'bn' in name} == {f'last.bn.{name}' for name in nn.BatchNorm2d(4).state_dict()}
    assert lost['last.bn.running_mean'].reason == ('it normalises the outputs of last.conv.weight, which has no source')
    assert lost['last.bn.running_mean'].alternatives == ('last.bn.running_mean',)


def test_statistics_beside_their_convolution_stay() -> None:
    assert all(entry.loads for entry in WeightMapper(branch(3), branch(3)).plan.entries)
