"""Axis groups of attention and MLPs."""

from __future__ import annotations

from group_names import groups_of, halved

WAN = {
    'blocks.0.self_attn.q.weight': (16, 16), 'blocks.0.self_attn.q.bias': (16,),
    'blocks.0.self_attn.k.weight': (16, 16), 'blocks.0.self_attn.v.weight': (16, 16),
    'blocks.0.self_attn.o.weight': (16, 16), 'blocks.0.self_attn.o.bias': (16,),
    'blocks.0.self_attn.norm_q.weight': (16,), 'blocks.0.self_attn.norm_k.weight': (16,),
    'blocks.0.ffn.0.weight': (64, 16), 'blocks.0.ffn.0.bias': (64,), 'blocks.0.ffn.2.weight': (16, 64),
}  # fmt: skip


def test_q_k_v_and_o_share_heads_and_norms_over_all_heads_follow() -> None:
    found = groups_of(halved(WAN, head_dim=4))
    assert found['blocks.0.self_attn.heads'] == [
        'blocks.0.self_attn.q.weight:0:q', 'blocks.0.self_attn.q.bias:0:q', 'blocks.0.self_attn.k.weight:0:k',
        'blocks.0.self_attn.v.weight:0:out', 'blocks.0.self_attn.o.weight:1:in', 'blocks.0.self_attn.norm_q.weight:0:q',
        'blocks.0.self_attn.norm_k.weight:0:k']  # fmt: skip
    assert found['blocks.0.ffn.hidden'] == [
        'blocks.0.ffn.0.weight:0:out', 'blocks.0.ffn.0.bias:0:out', 'blocks.0.ffn.2.weight:1:in']  # fmt: skip
    assert found['stream.16'] == [
        'blocks.0.self_attn.q.weight:1:in', 'blocks.0.self_attn.k.weight:1:in', 'blocks.0.self_attn.v.weight:1:in',
        'blocks.0.self_attn.o.weight:0:out', 'blocks.0.self_attn.o.bias:0:out', 'blocks.0.ffn.0.weight:1:in',
        'blocks.0.ffn.2.weight:0:out']  # fmt: skip


def test_norms_within_heads_and_tables_by_head() -> None:
    shapes = {name: shape for name, shape in WAN.items() if 'norm_' not in name}
    shapes |= {
        'blocks.0.self_attn.q_norm.weight': (8,), 'blocks.0.self_attn.relative_position_bias_table': (9, 2),
        'blocks.0.self_attn.logit_scale': (2, 1, 1),
    }  # fmt: skip
    plan = halved(shapes, keep=(9,), heads={'source': 2, 'target': 2})
    found = groups_of(plan)
    assert 'blocks.0.self_attn.q_norm.weight:0:dim' in found['blocks.0.self_attn.heads']
    group = plan.groups['blocks.0.self_attn.heads']
    assert (group.unit, group.target_unit) == (8, 4)
    wide = {**shapes, 'blocks.0.self_attn.relative_position_bias_table': (9, 8)}
    del wide['blocks.0.self_attn.q_norm.weight'], wide['blocks.0.self_attn.logit_scale']
    found = groups_of(halved(wide, keep=(9,), heads={'source': 8, 'target': 4}))
    assert 'blocks.0.self_attn.relative_position_bias_table:1:head' not in found  # 8 columns stay 8 in this halving


def test_heads_are_counted_in_the_table() -> None:
    shapes = {**WAN, 'blocks.0.self_attn.relative_position_bias_table': (9, 16)}
    group = halved(shapes, keep=(9,)).groups['blocks.0.self_attn.heads']
    assert (group.unit, group.target_unit) == (1, 0)


def test_gate_and_value_in_one_layer_are_two_halves_of_hidden_units() -> None:
    shapes = {**WAN, 'blocks.0.ffn.0.weight': (128, 16), 'blocks.0.ffn.0.bias': (128,)}
    plan = halved(shapes, head_dim=4)
    steps = [str(step) for step in plan['blocks.0.ffn.0.weight'].pieces[0].steps]
    assert steps == [
        'reshape([2, 64, 16])', 'project(1, blocks.0.ffn.hidden, out)', 'project(2, stream.16, in)',
        'reshape([64, 8])']  # fmt: skip


def test_grouped_queries_go_with_their_keys() -> None:
    shapes = {**WAN, 'blocks.0.self_attn.k.weight': (8, 16), 'blocks.0.self_attn.v.weight': (8, 16)}
    del shapes['blocks.0.self_attn.norm_k.weight']
    plan = halved(shapes, method='svd', head_dim=4)
    group = plan.groups['blocks.0.self_attn.heads']
    assert (group.source_width, group.target_width, group.unit, group.queries) == (8, 4, 4, (2, 2))
    assert groups_of(plan)['blocks.0.self_attn.heads'] == [
        'blocks.0.self_attn.q.weight:0:q', 'blocks.0.self_attn.q.bias:0:q', 'blocks.0.self_attn.k.weight:0:k',
        'blocks.0.self_attn.v.weight:0:out', 'blocks.0.self_attn.o.weight:1:o',
        'blocks.0.self_attn.norm_q.weight:0:q']  # fmt: skip


def test_keys_that_are_no_whole_heads_are_truncated_and_it_is_said() -> None:
    shapes = {**WAN, 'blocks.0.self_attn.k.weight': (8, 16), 'blocks.0.self_attn.v.weight': (8, 16)}
    plan = halved({name: shapes[name] for name in shapes if 'norm_' not in name}, method='svd', head_dim=8)
    assert any('q, k and v have other widths' in note for note in plan.notes)
    assert {group.method for name, group in plan.groups.items() if 'self_attn' in name} == {'truncate'}
