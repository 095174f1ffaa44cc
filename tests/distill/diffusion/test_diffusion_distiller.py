"""The built model: a plain student by its names and files, runs, resumes, averages, mixed precision, two processes."""

from __future__ import annotations

import contextlib
import copy
import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch import distributed, multiprocessing
from wan_fixtures import PROMPTS, distilled, pipeline

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin import launch
from kdplugin.distill.diffusion.diffusion_distiller import diffusion_mistakes
from kdplugin.distill.distiller import adapters_of, distillation_of
from kdplugin.distill.schedules import Moment
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.hooks.cpu_ddp import CPUDistributedDataParallel
from kdplugin.models.generators import WanLiteStudent
from kdplugin.weights.reading.io import hash_tensors, read_checkpoint

__all__ = ['pipeline']
_names = itertools.count()


class Stopped(Exception):
    """The run died."""


@HOOKS.register_module()
class RecordDiffusion(Hook):
    """Keep the losses of every step and the sizes of its batches; die behind one if asked to."""

    priority = 'LOWEST'

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.losses: dict[int, float] = {}
        self.sizes: list[int] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.sizes.append(len(data_batch['prompt']))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses[runner.iter] = float(outputs['loss'])
        if self.stop == runner.iter + 1:
            raise Stopped


def run_config(pipeline: Path, work_dir: Path, *, ema: bool = False, stop: int | None = None, **more: Any) -> Config:
    """Return a run of two epochs over 8 prompts in batches of 3: 3, 3 and 2."""
    heads = dict(source=4, target=2)
    projection = dict(type='kdplugin.WeightProjectionHook', source=str(pipeline), subfolder='transformer_2', target='',
                      heads=heads, min_coverage=1.0)  # fmt: skip
    hooks = [
        projection,
        *([dict(type='EMAHook', momentum=0.1)] if ema else []),
        dict(type='kdplugin.SavePretrainedHook'),
    ]
    file = work_dir.parent / 'prompts.txt'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(PROMPTS[:8]))
    config = dict(
        default_scope='mmengine', experiment_name=f'wan-{next(_names)}', work_dir=str(work_dir),
        model=distilled(pipeline, work_dir.parent), randomness=dict(seed=3),
        custom_hooks=[*hooks, dict(type='RecordDiffusion', stop=stop)], resume=False,
        load_from=None, log_level='WARNING',
        train_dataloader=dict(
            batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='kdplugin.PromptDataset', prompts=str(file)),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2)),
    )  # fmt: skip
    config.update(more)
    return Config(config)


def start(config: Config, **options: Any) -> tuple[Runner, RecordDiffusion]:
    init_default_scope('mmengine')
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True)):
        runner = launch.build_runner(launch.prepare(config, **options))
        with contextlib.suppress(Stopped):
            runner.train()
    return runner, next(hook for hook in runner.hooks if isinstance(hook, RecordDiffusion))


def hash_of(model: Any) -> str:
    return hash_tensors(model.state_dict())


@pytest.fixture(scope='module')
def whole(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, RecordDiffusion]:
    return start(run_config(pipeline, tmp_path_factory.mktemp('whole') / 'run', ema=True))


def test_the_model_is_the_student(pipeline: Path, tmp_path: Path) -> None:
    config = distilled(pipeline, tmp_path)
    torch.manual_seed(0)
    plain = MODELS.build(config['student'])
    torch.manual_seed(0)
    model = MODELS.build(config)
    assert isinstance(model, WanLiteStudent)
    assert type(model).__name__ == 'WanLiteStudent'
    assert hash_of(model) == hash_of(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {name for name, _ in model.named_parameters()} - {name for name, _ in plain.named_parameters()} == {
        '_kd.block.0.weight', '_kd.block.0.bias'
    }  # fmt: skip
    assert model.config == plain.config


def test_copies_are_students_without_a_teacher(pipeline: Path, tmp_path: Path) -> None:
    model = MODELS.build(distilled(pipeline, tmp_path))
    twin = copy.deepcopy(model)
    assert distillation_of(twin) is None
    assert hash_of(twin) == hash_of(model)
    with pytest.raises(ConfigError, match=r'Expected the student itself in a training step but got a copy'):
        twin(prompt=['a'], mode='loss')


def test_every_batch_of_an_epoch_trains_the_last_one_too(whole: tuple[Runner, RecordDiffusion]) -> None:
    runner, record = whole
    assert record.sizes == [3, 3, 2, 3, 3, 2]
    assert len(record.losses) == 6
    assert runner.iter == 6


def test_the_teacher_is_as_it_was(whole: tuple[Runner, RecordDiffusion], pipeline: Path) -> None:
    from kdplugin.distill.diffusion.wan_teacher import WanTeacher

    teacher = distillation_of(whole[0].model).wan  # type: ignore[union-attr]
    assert hash_of(teacher.module) == hash_of(WanTeacher(pipeline, 'float32').module)


def test_what_is_saved_is_the_student_alone(whole: tuple[Runner, RecordDiffusion]) -> None:
    runner = whole[0]
    content = read_checkpoint(Path(runner.work_dir) / 'epoch_2.pth')
    plain = MODELS.build(runner.cfg.model.student)
    plain.load_state_dict(content['state_dict'], strict=True)
    assert list(content['kdplugin']['adapters']) == ['block.0.weight', 'block.0.bias']
    assert content['meta']['kdplugin']['projection']['coverage'] == {'tensors': 1.0, 'parameters': 1.0}


def test_the_saved_folder_is_the_trained_student_and_its_average(whole: tuple[Runner, RecordDiffusion]) -> None:
    runner = whole[0]
    folder = Path(runner.work_dir) / 'student'
    assert sorted(path.name for path in folder.iterdir()) == ['config.json', 'diffusion_pytorch_model.safetensors']
    assert hash_of(WanLiteStudent.from_pretrained(folder)) == hash_of(runner.model)
    averaged = next(hook.ema_model.module for hook in runner.hooks if hasattr(hook, 'ema_model'))
    assert hash_of(WanLiteStudent.from_pretrained(folder.with_name('student_ema'))) == hash_of(averaged)
    assert hash_of(averaged) != hash_of(runner.model)


def test_a_resumed_run_is_the_uninterrupted_one(
    whole: tuple[Runner, RecordDiffusion], pipeline: Path, tmp_path: Path
) -> None:
    """Adapters, average, noise and order of the prompts included: killed in epoch 2, resumed from the first."""
    start(run_config(pipeline, tmp_path / 'run', ema=True, stop=4))
    runner, record = start(run_config(pipeline, tmp_path / 'run', ema=True), resume='auto')
    assert list(record.losses) == [3, 4, 5]
    assert record.losses == {step: loss for step, loss in whole[1].losses.items() if step > 2}
    assert hash_of(runner.model) == hash_of(whole[0].model)
    assert hash_of(adapters_of(runner.model)) == hash_of(adapters_of(whole[0].model))
    folders = [Path(one.work_dir) / 'student_ema' for one in (runner, whole[0])]
    assert hash_of(WanLiteStudent.from_pretrained(folders[0])) == hash_of(WanLiteStudent.from_pretrained(folders[1]))


def test_a_resume_with_another_teacher_is_refused(pipeline: Path, tmp_path: Path) -> None:
    from kdplugin.models.generators.tiny_pipeline import make_tiny_pipeline

    start(run_config(pipeline, tmp_path / 'run', stop=4))
    other = make_tiny_pipeline(tmp_path / 'other', prompts=PROMPTS[:8], steps=0, seed=1)
    with pytest.raises(CheckpointError, match=r'Expected the teacher this run began with'):
        start(run_config(other, tmp_path / 'run'), resume='auto')


def test_mixed_precision_trains_and_leaves_the_teacher_alone(
    whole: tuple[Runner, RecordDiffusion], pipeline: Path, tmp_path: Path
) -> None:
    _, record = start(run_config(pipeline, tmp_path / 'run', stop=2), amp=True)
    for step, loss in record.losses.items():
        assert loss == pytest.approx(whole[1].losses[step], rel=0.05)
        assert loss != whole[1].losses[step]


def process(rank: int, pipeline: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MODELS.build(distilled(pipeline, folder))
    wrapped = CPUDistributedDataParallel(model.train(), broadcast_buffers=False)
    distillation_of(model).attended = True  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(10 + rank)
    losses = []
    for step in range(2):
        distillation_of(model).at(Moment(step, max_iters=2))  # type: ignore[union-attr]
        total, _ = model.parse_losses(wrapped(prompt=PROMPTS[2 * rank : 2 * rank + 2], mode='loss'))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total))
    torch.save(dict(losses=losses, weights=hash_tensors(dict(model.named_parameters()))), folder / f'rank{rank}.pt')
    distributed.destroy_process_group()


def test_two_processes_stay_one_student(pipeline: Path, tmp_path: Path) -> None:
    multiprocessing.start_processes(process, (pipeline, tmp_path), nprocs=2, start_method='fork')
    first, second = (torch.load(tmp_path / f'rank{rank}.pt', weights_only=True) for rank in range(2))
    assert first['weights'] == second['weights']
    assert first['losses'] != second['losses']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(teachers={}),
            r"Expected keys \[.*\] in kdplugin.DiffusionDistiller but got 'teachers'\. Did you mean 'teacher'",
        ),
        (dict(flow=None), r'Expected flow=dict\(\.\.\.\) in kdplugin.DiffusionDistiller but got None'),
        (dict(text_encoder=dict(max_length=8)), r'Expected a folder in text_encoder but got none\. Write cache='),
        (dict(text_encoder=dict(cache='x', lenght=8)), r"in text_encoder but got 'lenght'"),
        (dict(drop_prompt=1.0), r'Expected drop_prompt from 0 to below 1 but got 1.0'),
        (dict(student=None), r'Expected a student in kdplugin.Distiller but got none'),
        (dict(teacher=dict(path='x', dtype='int8')), r'Expected dtype of'),
        (dict(flow=dict(size=(8, 7))), r'Expected size='),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    config = distilled(Path('x'), Path('y'))
    del config['type']
    assert not list(diffusion_mistakes(config))
    (mistake,) = diffusion_mistakes({**config, **change})
    with pytest.raises(ConfigError, match=message):
        raise mistake


def test_a_student_of_other_latents_is_refused(pipeline: Path, tmp_path: Path) -> None:
    config = distilled(pipeline, tmp_path)
    config['student'] = dict(config['student'], in_channels=4)
    with pytest.raises(
        ConfigError, match=r"Expected a student of the latents and text of its teacher, .*'in_channels': 16"
    ):
        MODELS.build(config)
