"""Axis groups of patch merging, modulation and tables; what nothing explains is truncated and named."""

from __future__ import annotations

from group_names import groups_of, halved

BLOCK = {
    'norm1.weight': (16,), 'norm1.bias': (16,), 'attn.qkv.weight': (48, 16), 'attn.proj.weight': (16, 16),
    'mlp.fc1.weight': (40, 16), 'mlp.fc2.weight': (16, 40),
}  # fmt: skip


def block(path: str, width: int = 16) -> dict[str, tuple[int, ...]]:
    times = width // 16
    return {f'{path}.{name}': tuple(n * times for n in shape) for name, shape in BLOCK.items()}


def test_patch_merging_reads_four_neighbours_one_after_the_other() -> None:
    shapes = {
        **block('layers.0.blocks.0'), 'layers.1.downsample.norm.weight': (64,), 'layers.1.downsample.norm.bias': (64,),
        'layers.1.downsample.reduction.weight': (32, 64), **block('layers.1.blocks.0', 32),
    }  # fmt: skip
    plan = halved(shapes, head_dim=8)
    assert [str(step) for step in plan['layers.1.downsample.reduction.weight'].pieces[0].steps] == [
        'reshape([32, 4, 16])', 'project(0, stream.32, out)', 'project(2, stream.16, in)',
        'reshape([16, 32])']  # fmt: skip
    assert [str(step) for step in plan['layers.1.downsample.norm.weight'].pieces[0].steps] == [
        'reshape([4, 16])', 'project(1, stream.16, gain)', 'reshape([32])']  # fmt: skip


def test_patch_merging_of_mmseg_keeps_the_neighbours_of_each_channel_together() -> None:
    shapes = {
        **block('stages.0.blocks.0'), 'stages.0.downsample.norm.weight': (64,),
        'stages.0.downsample.reduction.weight': (32, 64), **block('stages.1.blocks.0', 32),
    }  # fmt: skip
    steps = halved(shapes, head_dim=8)['stages.0.downsample.reduction.weight'].pieces[0].steps
    assert [str(step) for step in steps[:3]] == [
        'reshape([32, 16, 4])', 'project(0, stream.32, out)', 'project(1, stream.16, in)']  # fmt: skip


def test_modulation_writes_several_copies_of_the_stream() -> None:
    shapes = {
        **block('blocks.0'), 'blocks.0.scale_shift_table': (1, 6, 16), 'condition_embedder.time_proj.weight': (96, 16),
        'condition_embedder.time_proj.bias': (96,),
    }  # fmt: skip
    plan = halved(shapes, method='svd', head_dim=8)
    assert str(plan['condition_embedder.time_proj.bias'].pieces[0].steps[0]) == 'reshape([6, 16])'
    assert 'blocks.0.scale_shift_table:2:out' in groups_of(plan)['stream.16']
    assert plan.groups['stream.16'].kind == 'hidden'
    assert any('modulates it' in note for note in plan.notes)


def test_tables_and_heads_of_a_transformer_join_its_stream() -> None:
    shapes = {
        'cls_token': (1, 1, 16), 'pos_embed': (1, 9, 16), 'patch_embed.proj.weight': (16, 3, 4, 4), **block('blocks.0'),
        'norm.weight': (16,), 'query_embed.weight': (50, 16), 'head.weight': (10, 16),
    }  # fmt: skip
    found = groups_of(halved(shapes, keep=(3, 9, 10, 50), head_dim=8))['stream.16']
    outside = [where for where in found if not where.startswith('blocks')]
    assert outside == [
        'cls_token:2:out', 'pos_embed:2:out', 'patch_embed.proj.weight:0:out', 'norm.weight:0:gain',
        'query_embed.weight:1:out', 'head.weight:1:in']  # fmt: skip


def test_what_nothing_explains_is_truncated_and_named() -> None:
    plan = halved({**block('blocks.0'), 'blocks.0.attn.strange': (12, 3)}, keep=(3,), head_dim=8, method='svd')
    assert plan['blocks.0.attn.strange'].kind == 'refused'
    plan = halved({**block('blocks.0'), 'blocks.0.strange.bias': (12,)}, head_dim=8, method='svd')
    assert plan.groups['blocks.0.strange.bias.0'].method == 'truncate'
    assert 'blocks.0.strange.bias: axis 0 (12 to 6) could not be traced; truncated' in plan.notes
