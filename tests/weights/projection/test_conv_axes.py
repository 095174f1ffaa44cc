"""Axis groups of convolutions: private inside blocks, shared where blocks add, together around gates."""

from __future__ import annotations

from group_names import groups_of, halved

BOTTLENECK = {
    'conv1.weight': (16, 3, 3, 3), 'bn1.weight': (16,), 'bn1.bias': (16,),
    'layer1.0.conv1.weight': (24, 16, 1, 1), 'layer1.0.bn1.weight': (24,), 'layer1.0.bn1.running_var': (24,),
    'layer1.0.conv2.weight': (24, 24, 3, 3), 'layer1.0.bn2.weight': (24,),
    'layer1.0.conv3.weight': (32, 24, 1, 1), 'layer1.0.bn3.weight': (32,), 'layer1.0.bn3.running_mean': (32,),
    'layer1.0.downsample.0.weight': (32, 16, 1, 1), 'layer1.0.downsample.1.weight': (32,),
    'layer1.1.conv1.weight': (24, 32, 1, 1), 'layer1.1.conv2.weight': (24, 24, 3, 3),
    'layer1.1.conv3.weight': (32, 24, 1, 1), 'fc.weight': (10, 32),
}  # fmt: skip


def test_residual_stages_share_and_inner_channels_are_private() -> None:
    found = groups_of(halved(BOTTLENECK, keep=(3, 10)))
    assert found['channels.32'] == [
        'layer1.0.conv3.weight:0:out', 'layer1.0.bn3.weight:0:gain', 'layer1.0.bn3.running_mean:0:out',
        'layer1.0.downsample.0.weight:0:out', 'layer1.0.downsample.1.weight:0:gain', 'layer1.1.conv1.weight:1:in',
        'layer1.1.conv3.weight:0:out', 'fc.weight:1:in']  # fmt: skip
    assert found['layer1.0.inner0'] == [
        'layer1.0.conv1.weight:0:out', 'layer1.0.bn1.weight:0:gain', 'layer1.0.bn1.running_var:0:gain',
        'layer1.0.conv2.weight:1:in']  # fmt: skip
    assert found['layer1.0.inner1'] == [
        'layer1.0.conv2.weight:0:out', 'layer1.0.bn2.weight:0:gain', 'layer1.0.conv3.weight:1:in']  # fmt: skip
    assert 'layer1.0.downsample.0.weight:1:in' in found['channels.16']


def test_depthwise_channels_are_those_that_enter() -> None:
    shapes = {
        'features.0.conv.0.weight': (16, 3, 1, 1), 'features.0.conv.1.weight': (16, 1, 3, 3),
        'features.0.conv.2.weight': (8, 16, 1, 1), 'features.1.conv.0.weight': (16, 8, 1, 1),
        'features.1.conv.1.weight': (16, 1, 3, 3), 'features.1.conv.2.weight': (8, 16, 1, 1),
    }  # fmt: skip
    found = groups_of(halved(shapes, keep=(3, 1)))
    assert found['features.1.inner0'] == [
        'features.1.conv.0.weight:0:out', 'features.1.conv.1.weight:0:out',
        'features.1.conv.2.weight:1:in']  # fmt: skip


def test_a_gate_has_the_channels_that_it_multiplies() -> None:
    shapes = {
        'blocks.0.block.0.weight': (24, 8, 1, 1), 'blocks.0.block.1.weight': (24, 1, 3, 3),
        'blocks.0.block.2.fc1.weight': (12, 24, 1, 1), 'blocks.0.block.2.fc2.weight': (24, 12, 1, 1),
        'blocks.0.block.3.weight': (8, 24, 1, 1), 'blocks.1.block.0.weight': (24, 8, 1, 1),
        'blocks.1.block.1.weight': (8, 24, 1, 1),
    }  # fmt: skip
    found = groups_of(halved(shapes, keep=(1, 3)))
    assert found['blocks.0.24'] == [
        'blocks.0.block.0.weight:0:out', 'blocks.0.block.1.weight:0:out', 'blocks.0.block.2.fc1.weight:1:in',
        'blocks.0.block.2.fc2.weight:0:out', 'blocks.0.block.3.weight:1:in']  # fmt: skip
    assert found['blocks.0.12'] == ['blocks.0.block.2.fc1.weight:0:out', 'blocks.0.block.2.fc2.weight:1:in']


def test_plain_chains_have_a_group_for_each_link() -> None:
    shapes = {f'features.{i}.weight': (16, n, 3, 3) for i, n in ((0, 3), (3, 16), (6, 16))}
    shapes['classifier.0.weight'] = (40, 16 * 9)
    shapes['classifier.3.weight'] = (5, 40)
    plan = halved(shapes, keep=(3, 5))
    found = groups_of(plan)
    assert found['chain.inner0'] == ['features.0.weight:0:out', 'features.3.weight:1:in']
    assert found['chain.inner1'] == ['features.3.weight:0:out', 'features.6.weight:1:in']
    assert found['channels.16'] == ['features.6.weight:0:out', 'classifier.0.weight:1:in']
    assert found['classifier.inner0'] == ['classifier.0.weight:0:out', 'classifier.3.weight:1:in']
    steps = [str(step) for step in plan['classifier.0.weight'].pieces[0].steps]
    assert steps[0] == 'reshape([40, 16, 9])'


def test_branches_share_channels_of_equal_widths_and_it_is_said() -> None:
    shapes = {
        'mixed.0.a.weight': (16, 8, 1, 1), 'mixed.0.b.weight': (16, 8, 3, 3), 'mixed.1.a.weight': (16, 32, 1, 1),
        'mixed.1.b.weight': (16, 32, 3, 3),
    }  # fmt: skip
    plan = halved(shapes)
    assert any('mixed.0: its layers are no plain chain' in note for note in plan.notes)
    writers = [f'mixed.{i}.{n}.weight:0:out' for i in (0, 1) for n in 'ab']
    assert sorted(groups_of(plan)['channels.16']) == sorted(
        [*writers, 'mixed.1.a.weight:2:in', 'mixed.1.b.weight:2:in']
    )
    assert str(plan['mixed.1.b.weight'].pieces[0].steps[0]) == 'reshape([16, 2, 16, 3, 3])'
    assert 'mixed.1.a is taken to read 2 maps of 16 channels, concatenated' in plan.notes


def test_feature_pyramids_read_the_backbone_and_share_their_own_channels() -> None:
    shapes = {
        **BOTTLENECK, 'neck.lateral_convs.0.conv.weight': (20, 16, 1, 1),
        'neck.lateral_convs.1.conv.weight': (20, 32, 1, 1), 'neck.fpn_convs.0.conv.weight': (20, 20, 3, 3),
    }  # fmt: skip
    del shapes['fc.weight']
    found = groups_of(halved(shapes, keep=(3, 10)))
    assert 'neck.lateral_convs.1.conv.weight:1:in' in found['channels.32']
    assert found['channels.20'] == [
        'neck.lateral_convs.0.conv.weight:0:out', 'neck.lateral_convs.1.conv.weight:0:out',
        'neck.fpn_convs.0.conv.weight:0:out', 'neck.fpn_convs.0.conv.weight:1:in']  # fmt: skip
