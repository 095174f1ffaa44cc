"""The sweep over architectures: which configs it takes, what it does with one, how it counts, that hangs are ended."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import segmentor
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import architecture_step  # noqa: E402
import architecture_sweep  # noqa: E402
from architecture_step import examine, feature_tap, head_tap, plain_values, runs_in_a_teacher, settle, step, told  # noqa: E402
from architecture_sweep import config_root, first_that_trains, folders, has_model, isolated, preference, summary  # noqa: E402

SEGMENTOR = """
default_scope = 'mmseg'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, norm_cfg=norm_cfg, style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    decode_head=dict(
        type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=3, norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(architecture_step, 'SIZES', ((64, 64),))
    file = tmp_path / 'fcn_r18.py'
    file.write_text(SEGMENTOR)
    return file


def test_a_config_goes_all_the_way(config: Path) -> None:
    assert examine(config) == {
        'config': 'fcn_r18.py', 'stage': 'ok', 'reason': '', 'size': (64, 64),
        'taps': ('backbone', 'decode_head.conv_seg'),
    }  # fmt: skip


def test_a_model_that_does_not_train_is_not_ours_to_count(config: Path) -> None:
    config.write_text(SEGMENTOR.replace('in_channels=64', 'in_channels=60'))
    outcome = examine(config)
    assert outcome['stage'] == 'plain'
    assert outcome['reason'].startswith('RuntimeError: Given groups=1')


def test_what_stops_distillation_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture_step, 'feature_tap', lambda _: 'nowhere')
    outcome = examine(config)
    assert outcome['stage'] == 'kd'
    assert outcome['reason'].startswith("PathError: Expected a module path of the student but got 'nowhere'")


def test_a_checkpoint_that_does_not_fit_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = architecture_step.state_dict_of
    monkeypatch.setattr(
        architecture_step,
        'state_dict_of',
        lambda *given: {**true(*given), '_kd.left': true(*given)['backbone.conv1.weight']},
    )
    outcome = examine(config)
    assert outcome['stage'] == 'load'
    assert 'Unexpected key' in outcome['reason']


def test_a_step_that_would_spoil_the_weights_is_none() -> None:
    init_default_scope('mmseg')
    model = MODELS.build(segmentor())
    before = model.backbone.conv1.weight.detach().clone()
    model.backbone.conv1.weight.register_hook(lambda gradient: gradient * float('inf'))
    with pytest.raises(ValueError, match=r'the norm of the gradient is (nan|inf)'):
        step(model, (64, 64))
    assert torch.equal(model.backbone.conv1.weight, before)


def test_teachers_have_the_statistics_of_a_batch() -> None:
    init_default_scope('mmseg')
    model = MODELS.build(segmentor())
    model.backbone.bn1.momentum = 0.25
    settle(model, (64, 64))
    assert model.backbone.bn1.momentum == 0.25
    caught: list[Any] = []
    model.backbone.bn1.register_forward_hook(lambda _module, given, _output: caught.append(given[0]))
    torch.manual_seed(0)
    settle(model, (64, 64))
    statistics = model.backbone.bn1.running_mean, caught[0].mean((0, 2, 3))
    torch.testing.assert_close(*statistics)


def test_reasons_name_no_folder_of_the_machine() -> None:
    error = ImportError("No 'x' in /usr/lib-1/a.b/y.py but 3/4, the current sys.path is: /usr")
    assert told(error) == "ImportError: No 'x' in y.py but 3/4"
    assert len(told(ValueError('a' * 1000))) == 400


def test_nothing_of_the_model_changes_but_files_and_processes() -> None:
    init = dict(type='Normal', std=0.1)
    node = dict(a=[dict(init_cfg=init), dict(pretrained='x')], b=dict(type='SyncBN', eps=1), c=('SyncBN', 3))
    assert plain_values(node) == dict(
        a=[dict(init_cfg=init), dict(pretrained=None)], b=dict(type='BN', eps=1), c=('SyncBN', 3)
    )


def test_taps_are_where_scores_come_from() -> None:
    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='GFL',
            backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3), norm_cfg=dict(type='BN')),
            neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=8, num_outs=3),
            bbox_head=dict(
                type='GFLHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=None,
                anchor_generator=dict(
                    type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32]
                ),
                loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True),
                loss_dfl=dict(type='DistributionFocalLoss'), loss_bbox=dict(type='GIoULoss'),
            ),
            train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
        )
    )  # fmt: skip
    assert feature_tap(model) == 'neck'
    assert head_tap(model, (64, 64)) == 'bbox_head.gfl_cls'


def test_queries_that_denoising_adds_are_no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    init_default_scope('mmseg')
    model = MODELS.build(segmentor())
    path = 'decode_head.conv_seg'  # 11 channels stand for 11 queries
    assert runs_in_a_teacher(model, path, torch.zeros(2, 11, 4), (64, 64))
    assert not runs_in_a_teacher(model, path, torch.zeros(2, 12, 4), (64, 64))
    monkeypatch.setattr(model, 'forward', lambda *_, **__: None)
    assert not runs_in_a_teacher(model, path, torch.zeros(2, 11, 4), (64, 64))


def test_a_head_that_runs_in_training_only_is_no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    init_default_scope('mmseg')
    model = MODELS.build(segmentor())
    head = model.decode_head
    head.aux_cls_seg = torch.nn.Conv2d(head.channels, 11, 1)  # as DDRNet's
    plain = head.forward

    def forward(inputs: Any) -> Any:
        return plain(inputs) + (head.aux_cls_seg(head._forward_feature(inputs)) if head.training else 0)

    monkeypatch.setattr(head, 'forward', forward)
    assert head_tap(model, (64, 64)) == 'decode_head.conv_seg'


def test_small_plain_models_come_first() -> None:
    names = ['x_r101_1x.py', 'x_r50_fpn_mstrain_1x.py', 'x_r50_fpn_1x.py', 'x_tiny_1x.py', 'x_r50_1x.py']
    assert sorted(names, key=preference) == [
        'x_tiny_1x.py', 'x_r50_1x.py', 'x_r50_fpn_1x.py', 'x_r50_fpn_mstrain_1x.py', 'x_r101_1x.py',
    ]  # fmt: skip


@pytest.mark.parametrize(('package', 'at_least', 'some'), [('mmdet', 90, 'gfl'), ('mmseg', 45, 'pspnet')])
def test_every_folder_has_a_config(package: str, at_least: int, some: str) -> None:
    found = dict(folders(package))
    assert len(found) >= at_least
    assert some in found
    assert '_base_' not in found
    assert all(paths for paths in found.values())
    assert all(path.is_relative_to(config_root(package) / name) for name, paths in found.items() for path in paths)


def test_a_data_set_is_no_architecture(tmp_path: Path) -> None:
    (tmp_path / 'a.py').write_text("dataset_type = 'X'\n# model = 1\n")
    (tmp_path / 'b.py').write_text("_base_ = ['x.py']\n")
    assert [has_model(tmp_path / name) for name in ('a.py', 'b.py')] == [False, True]


def test_counting() -> None:
    outcomes: dict[str, dict[str, Any]] = {
        'a': {'config': 'a.py', 'stage': 'ok', 'reason': '', 'taps': ['neck']},
        'b': {'config': 'b.py', 'stage': 'kd', 'reason': 'R', 'taps': []},
        'c': {'config': 'c.py', 'stage': 'plain', 'reason': 'no CUDA'},
    }
    assert summary(outcomes, 4) == {
        'total': 2,
        'ok': 1,
        'failed': [{'folder': 'b', 'reason': 'kd: R', 'config': 'b.py'}],
        'plain_model_does_not_train': [{'folder': 'c', 'reason': 'no CUDA', 'config': 'c.py'}],
        'taps': {'a': ['neck'], 'b': []},
        'not_examined_yet': 4,
    }


def test_folders_examined_before_are_not_examined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def once(config: Path, *_: Any) -> dict[str, Any]:
        seen.append(config.name)
        return {'config': config.name, 'stage': 'ok', 'reason': '', 'taps': ['neck']}

    monkeypatch.setattr(architecture_sweep, 'isolated', once)
    monkeypatch.setattr(architecture_sweep, 'folders', lambda package: iter([('x', [Path(f'{package}_x.py')])]))
    words = ['--work', str(tmp_path / 'work'), '--out', str(tmp_path / 'out.json')]
    assert architecture_sweep.main(words) == 0
    assert architecture_sweep.main(words) == 0
    assert seen == ['mmdet_x.py', 'mmseg_x.py']
    assert architecture_sweep.main([*words, '--again', '--packages', 'mmseg']) == 0
    assert seen[2:] == ['mmseg_x.py']
    results = json.loads((tmp_path / 'out.json').read_text())
    assert [results[package]['ok'] for package in ('mmdet', 'mmseg')] == [1, 1]


def test_the_next_config_is_tried_where_a_plain_model_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {'a.py': 'plain', 'b.py': 'kd', 'c.py': 'ok', 'slow.py': 'plain'}

    def outcome(config: Path, *_: int) -> dict[str, str]:
        late = 'not done after 1 s of processor time' if config.name == 'slow.py' else ''
        return {'config': config.name, 'stage': stages[config.name], 'reason': late}

    monkeypatch.setattr(architecture_sweep, 'isolated', outcome)
    a, b, c, slow = map(Path, stages)
    assert first_that_trains([slow, c], 1, 1)['config'] == 'slow.py'  # the others of its folder are no smaller
    assert first_that_trains([a, b, c], 1, 1)['config'] == 'b.py'  # what fails with us counts
    assert first_that_trains([a, a], 1, 1)['config'] == 'a.py'
    assert first_that_trains([a, a, a, c], 1, 1)['stage'] == 'plain'  # three are tried
    assert first_that_trains([], 1, 1)['reason'] == 'no config with a model'


def sleep(_: Path) -> dict[str, Any]:
    time.sleep(60)
    return {}


def spin(_: Path) -> dict[str, Any]:
    while True:
        pass


def die(_: Path) -> dict[str, Any]:
    sys.exit(7)


@pytest.mark.parametrize(
    ('what', 'reason'),
    [
        (sleep, 'not done after 1 s of processor time'),
        (spin, 'not done after 1 s of processor time'),
        (die, 'the process ended with exit code 7'),
    ],
)
def test_what_hangs_or_dies_is_ended(what: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture_sweep, 'METHOD', 'fork')
    monkeypatch.setattr(architecture_sweep, 'examine', what)
    monkeypatch.setattr(architecture_sweep, 'HANGS', 2 if what is sleep else 30)
    began = time.monotonic()
    assert isolated(Path('x.py'), 1, 2**40) == {'config': 'x.py', 'stage': 'plain', 'reason': reason}
    assert time.monotonic() - began < 30
