"""Contract 2, what is saved is the student, and the strict side of contract 6."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    KL,
    all_tensors,
    build,
    detector,
    distilled,
    distilled_detector,
    feature_and_logit_pairs,
    save_weights,
    segmentor,
)
from engine_runs import Run, run_config, start
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import kdplugin
from kdplugin.distill.distiller import adapters_of
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.hooks.distillation_hook import DistillationHook
from kdplugin.weights.reading.io import hash_file, hash_tensors, read_checkpoint

ROOT = Path(__file__).parents[2]


@HOOKS.register_module()
class SeesTheBackbone(Hook):
    """Stands for mmdet's and mmseg's hooks that reach into the model by its own names."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.channels = runner.model.backbone.conv1.out_channels
        assert runner.model.decode_head.num_classes == 11


@pytest.fixture(scope='module')
def said() -> list[str]:
    return []


@pytest.fixture(scope='module')
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Run:
    """A run with adapters, EMA and a best checkpoint; ``said`` is what it told a person."""
    config = run_config(
        shared, tmp_path_factory.mktemp('kd'), distilled(shared, feature_and_logit_pairs()), iters=4, validate_every=4,
        ema=True, hooks=(dict(type='mmengine.SeesTheBackbone'),),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.logging.MMLogger.info', lambda self, message, *_: said.append(str(message)))
        return start(config)


def checkpoint_of(run: Run, name: str = 'iter_4.pth') -> dict[str, Any]:
    return read_checkpoint(run.folder / name)


def test_hooks_see_the_student(run: Run) -> None:
    assert next(hook for hook in run.runner.hooks if isinstance(hook, SeesTheBackbone)).channels == 8


@pytest.mark.parametrize('name', ['iter_4.pth', 'best_mIoU_iter_4.pth'])
def test_checkpoints_load_strictly_into_the_plain_model(run: Run, name: str) -> None:
    checkpoint = checkpoint_of(run, name)
    build(segmentor()).load_state_dict(checkpoint['state_dict'], strict=True)
    averaged = [key for key in checkpoint['ema_state_dict'] if key != 'steps']
    assert averaged == [f'module.{key}' for key in checkpoint['state_dict']]


def test_saved_weights_are_the_averaged_ones(run: Run) -> None:
    ema = next(hook for hook in run.runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    assert hash_tensors(checkpoint_of(run)['state_dict']) == hash_tensors(ema.state_dict())
    assert hash_tensors(checkpoint_of(run)['state_dict']) != hash_tensors(run.model.state_dict())


def test_adapters_lie_under_one_key_of_their_own(run: Run) -> None:
    checkpoint = checkpoint_of(run)
    own = adapters_of(run.model).state_dict()
    assert hash_tensors(checkpoint['kdplugin']['adapters']) == hash_tensors(own)
    assert {name.split('.')[0] for name in own} == {'feature'}
    assert not any('_kd' in key for part in ('state_dict', 'ema_state_dict') for key in checkpoint[part])
    groups = checkpoint['optimizer']['param_groups']
    assert sum(len(group['params']) for group in groups) == len(list(run.model.parameters()))


def test_meta_tells_how_the_student_was_distilled(run: Run, shared: Path) -> None:
    record = checkpoint_of(run, 'best_mIoU_iter_4.pth')['meta']['kdplugin']
    assert record['version'] == kdplugin.__version__
    teacher = dict(checkpoint=str(shared / 'segmentor.pth'), sha256=hash_file(shared / 'segmentor.pth'))
    assert record['teachers'] == dict(teacher=teacher)
    assert record['settings']['pairs']['feature'] == dict(tap='backbone', weight=0.5, loss=COSINE)
    assert record['settings']['pairs']['logits'] == dict(tap='decode_head.conv_seg', weight=2.0, loss=KL)


def test_the_run_opens_with_who_learns_what_from_whom(run: Run, said: list[str], shared: Path) -> None:
    (opening,) = (text for text in said if 'student tap <- teacher tap' in text)
    student = sum(value.numel() for name, value in run.model.named_parameters() if not name.startswith('_kd.'))
    adapters = sum(value.numel() for value in adapters_of(run.model).parameters())
    teacher = sum(value.numel() for value in build(segmentor(16)).parameters())
    for number in (student, adapters, teacher):
        assert f'{number:,}' in opening
    for text in (hash_file(shared / 'segmentor.pth')[:8], '100', 'CosineLoss', 'decode_head.conv_seg', '8->16'):
        assert text in opening


def test_each_interval_closes_with_one_table_of_means(run: Run, said: list[str]) -> None:
    (table,) = (text for text in said if 'in the total' in text)
    assert 'iteration 4 ' in table
    mean = {name: sum(step[name] for step in run.steps.values()) / 4 for name in run.steps[0]}
    for row, names in {
        'task': ['kd_task'],
        'kd feature': ['kd_feature_raw', 'loss_kd_feature'],
        'kd logits': ['kd_logits_raw', 'loss_kd_logits'],
        'total': ['loss'],
    }.items():
        for name in names:
            (line,) = (line for line in table.splitlines() if line.strip().startswith(row))
            assert f' {mean[name]:#.4g} ' in f'{line} '
    assert f'{run.validations[4]["mIoU"]:.4g}' in table


def test_epochs_without_validation_close_with_a_table_too(shared: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.logging.MMLogger.info', lambda self, message, *_: said.append(str(message)))
        start(run_config(shared, tmp_path, distilled(shared, {}), epochs=2, save_every=1))
    tables = [text for text in said if 'in the total' in text]
    assert ['epoch 1 ' in tables[0], 'epoch 2 ' in tables[1], len(tables)] == [True, True, 2]


# resume


def resumed(run: Run, shared: Path, tmp_path: Path, checkpoint: dict[str, Any], **model: Any) -> Run:
    torch.save(checkpoint, tmp_path / 'iter_4.pth')
    student = distilled(shared, feature_and_logit_pairs()) | model
    return start(run_config(shared, tmp_path, student, iters=4, ema=True), resume='auto')


def test_resume_brings_adapters_back_without_a_complaint(
    run: Run, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = resumed(run, shared, tmp_path, checkpoint_of(run))
    assert hash_tensors(all_tensors(again.model)) == hash_tensors(all_tensors(run.model))
    assert 'do not match' not in ''.join(capsys.readouterr())


def test_resume_with_another_teacher_is_refused(run: Run, shared: Path, tmp_path: Path) -> None:
    other = save_weights(segmentor(16), tmp_path / 'other.pth', seed=9)
    message = rf'the teacher this run began with \(sha256 {hash_file(shared / "segmentor.pth")[:12]}\) but .*other\.pth'
    with pytest.raises(CheckpointError, match=message):
        resumed(run, shared, tmp_path, checkpoint_of(run), teacher=dict(model=segmentor(16), checkpoint=other))


def test_resume_of_a_run_without_distillation_is_refused(run: Run, shared: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(run)
    del checkpoint['kdplugin']
    with pytest.raises(CheckpointError, match=r'a distillation run but the checkpoint comes from a run without'):
        resumed(run, shared, tmp_path, checkpoint)


def test_resume_with_another_student_is_refused(run: Run, shared: Path, tmp_path: Path) -> None:
    message = r"to resume this student but \d+ tensors do not fit, such as \['auxiliary_head\.conv_seg\.bias'"
    with pytest.raises(CheckpointError, match=message):
        resumed(run, shared, tmp_path, checkpoint_of(run), student=segmentor(auxiliary=True))


def test_resume_with_other_pairs_is_refused(run: Run, shared: Path, tmp_path: Path) -> None:
    pairs = dict(renamed=dict(tap='backbone', loss=COSINE))
    with pytest.raises(
        CheckpointError, match=r"the checkpoint's adapters to fit .* missing \(such as renamed\.0\.weight"
    ):
        resumed(run, shared, tmp_path, checkpoint_of(run), pairs=pairs)


def test_load_from_starts_anew_from_the_students_weights(run: Run, shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, distilled(shared, feature_and_logit_pairs()), iters=1)
    config.load_from = str(run.folder / 'iter_4.pth')
    config.optim_wrapper.optimizer.lr = 0.0
    fresh = start(config)
    assert set(fresh.steps) == {0}
    weights = checkpoint_of(run)['state_dict']
    assert torch.equal(fresh.model.backbone.conv1.weight, weights['backbone.conv1.weight'])


def test_the_hook_needs_a_distilled_model(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, segmentor(), hooks=(dict(type='kdplugin.DistillationHook'),))
    with pytest.raises(ConfigError, match=r'kdplugin\.Distiller for DistillationHook but got EncoderDecoder'):
        start(config)


# a detector, and the tool


def test_a_detector_distils_validates_saves_and_resumes(shared: Path, tmp_path: Path) -> None:
    """mmdet's GFL on COCO annotations, through the dataset config that ships with the plugin."""

    def recipe(name: str) -> Config:
        data = Config.fromfile(ROOT / 'configs/_base_/datasets/digit_scenes_det.py')
        for split in ('train', 'val'):
            data[f'{split}_dataloader'].dataset.data_root = str(shared / 'digits')
            data[f'{split}_dataloader'].batch_size = 2
        data.val_evaluator.ann_file = str(shared / 'digits/annotations/val.json')
        config = run_config(shared, tmp_path / name, distilled_detector(shared), epochs=2, save_every=1)
        config.update(
            default_scope='mmdet', val_dataloader=data.val_dataloader, val_evaluator=data.val_evaluator,
            val_cfg=dict(type='ValLoop'),
        )  # fmt: skip
        config.train_dataloader = data.train_dataloader
        config.visualizer.type = 'DetLocalVisualizer'
        config.train_cfg.val_interval = 2
        return config

    whole = start(recipe('whole'))
    assert sorted(whole.steps) == list(range(8))
    assert all(step['kd_neck_raw'] > 0 and step['kd_cls_raw'] > 0 for step in whole.steps.values())
    assert 'coco/bbox_mAP' in whole.validations[8]
    build(detector()).load_state_dict(checkpoint_of(whole, 'epoch_2.pth')['state_dict'], strict=True)
    start(recipe('cut'), stop=('before_train_iter', 5))
    resumed = start(recipe('cut'), resume='auto')
    assert resumed.steps == {step: losses for step, losses in whole.steps.items() if step >= 4}
    assert hash_tensors(all_tensors(resumed.model)) == hash_tensors(all_tensors(whole.model))


def test_a_bomb_as_teacher_ends_the_tool_with_the_cure(
    shared: Path, tmp_path: Path, bomb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({'state_dict': bomb}, tmp_path / 'bomb.pth')
    model = distilled(shared, feature_and_logit_pairs())
    model['teacher']['checkpoint'] = str(tmp_path / 'bomb.pth')
    run_config(shared, tmp_path / 'run', model).dump(tmp_path / 'config.py')
    specification = importlib.util.spec_from_file_location('train_tool', ROOT / 'tools/train.py')
    assert specification is not None
    assert specification.loader is not None
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    assert tool.main([str(tmp_path / 'config.py')]) == 1
    complaint = capsys.readouterr().err
    assert 'trust_checkpoint=True' in complaint
    assert 'Nothing was executed' in complaint
    assert 'Traceback' not in complaint
    assert not bomb.marker.exists()


def test_the_hook_is_registered_under_its_prefix() -> None:
    assert isinstance(HOOKS.build(dict(type='kdplugin.DistillationHook')), DistillationHook)
