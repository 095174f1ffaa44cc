"""A run that starts from projected weights, with and without distillation, averaging, interruption and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor
from engine_runs import Run, run_config, start
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from projection_plans import expected, first_channels

from kdplugin import launch
from kdplugin.errors import CheckpointError, ConfigError, PathError
from kdplugin.hooks.weight_projection_hook import WeightProjectionHook
from kdplugin.weights.export import export_student
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.reading.io import hash_file, hash_tensors, read_checkpoint

PROJECTION = 'kdplugin.WeightProjectionHook'


@HOOKS.register_module()
class SeesTheStart(Hook):
    """Keep what the model and its average hold when training begins."""

    def before_train(self, runner: Runner) -> None:
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
        averaged = [hook.ema_model.module for hook in runner.hooks if hasattr(hook, 'ema_model')]
        self.averaged = [{name: value.clone() for name, value in model.state_dict().items()} for model in averaged]


@pytest.fixture(scope='module')
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('plan') / 'plan.json'
    first_channels().save(path)
    return str(path)


def hook(shared: Path, plan: str, **more: Any) -> dict[str, Any]:
    return dict(type=PROJECTION, source=str(shared / 'segmentor.pth'), plan=plan, **more)


def run(shared: Path, folder: Path, model: Any, projection: dict[str, Any] | None, **more: Any) -> Run:
    hooks = (*([projection] if projection else []), dict(type='mmengine.SeesTheStart'))
    return start(run_config(shared, folder, model, hooks=hooks, **more))


def start_of(run: Run) -> SeesTheStart:
    return next(hook for hook in run.runner.hooks if isinstance(hook, SeesTheStart))


@pytest.fixture(scope='module')
def said() -> list[str]:
    return []


@pytest.fixture(scope='module')
def plain(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(shared, tmp_path_factory.mktemp('plain'), segmentor(), None, iters=2)


@pytest.fixture(scope='module')
def projected(shared: Path, tmp_path_factory: pytest.TempPathFactory, plan: str, said: list[str]) -> Run:
    """A distilled student with adapters and an average that starts from projected weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.logging.MMLogger.info', lambda self, message, *_: said.append(str(message)))
        model = distilled(shared, feature_and_logit_pairs())
        return run(shared, tmp_path_factory.mktemp('kd'), model, hook(shared, plan), ema=True, iters=4)


def test_training_begins_with_the_projected_weights(projected: Run, shared: Path) -> None:
    began = start_of(projected).weights
    for name, value in expected(shared).items():
        assert torch.equal(began[name], value), name


def test_the_average_begins_with_them_too(projected: Run, shared: Path) -> None:
    (averaged,) = start_of(projected).averaged
    for name, value in expected(shared).items():
        assert torch.equal(averaged[name], value), name


def test_nothing_else_is_touched(plain: Run, shared: Path, tmp_path: Path, plan: str) -> None:
    """Same head, same batches and augmentations as in the plain recipe: no random number is drawn."""
    one = run(shared, tmp_path, segmentor(), hook(shared, plan), iters=2)
    first, other = start_of(plain).weights, start_of(one).weights
    assert [name for name in first if not torch.equal(first[name], other[name])] == [
        name for name, value in expected(shared).items() if not torch.equal(first[name], value)
    ]
    assert any('conv_seg' in name for name in first)
    assert other.keys() == first.keys()


def test_the_optimizer_trains_the_projected_parameters(projected: Run, shared: Path) -> None:
    weight = projected.model.backbone.conv1.weight
    groups = projected.runner.optim_wrapper.optimizer.param_groups
    assert any(parameter is weight for group in groups for parameter in group['params'])
    assert not torch.equal(weight, expected(shared)['backbone.conv1.weight'])


def test_records_lie_in_the_work_dir_and_the_tables_in_the_log(projected: Run, said: list[str]) -> None:
    folder = projected.folder / 'weight_projection'
    assert {file.name for file in folder.iterdir()} == {'plan.json', 'report.json', 'report.txt', 'layers.png'}
    assert ProjectionPlan.load(folder / 'plan.json') == first_channels()
    assert json.loads((folder / 'report.json').read_text())['coverage'] == {'tensors': 1.0, 'parameters': 1.0}
    (table,) = (text for text in said if 'target <- source' in text)
    assert 'segmentor.pth -> backbone' in table


def test_checkpoints_tell_where_the_weights_came_from(projected: Run, shared: Path, tmp_path: Path) -> None:
    record = dict(
        source=str(shared / 'segmentor.pth'), sha256=hash_file(shared / 'segmentor.pth'), target='backbone',
        coverage={'tensors': 1.0, 'parameters': 1.0},
    )  # fmt: skip
    meta = read_checkpoint(projected.folder / 'iter_4.pth')['meta']['kdplugin']
    assert meta['projection'] == record
    assert meta['teachers']['teacher']['checkpoint'] == str(shared / 'segmentor.pth')
    export_student(projected.folder / 'iter_4.pth', tmp_path / 'student.pth')
    assert read_checkpoint(tmp_path / 'student.pth')['meta']['kdplugin']['projection'] == record


def test_a_resumed_run_is_not_projected_again(projected: Run, shared: Path, tmp_path: Path, plan: str) -> None:
    def recipe() -> Any:
        model = distilled(shared, feature_and_logit_pairs())
        hooks = (hook(shared, plan), dict(type='mmengine.SeesTheStart'))
        return run_config(shared, tmp_path, model, hooks=hooks, ema=True, iters=4)

    start(recipe(), stop=('before_train_iter', 3))
    resumed = start(recipe(), resume='auto')
    assert sorted(resumed.steps) == [2, 3]
    assert resumed.steps == {step: values for step, values in projected.steps.items() if step >= 2}
    assert hash_tensors(resumed.model.state_dict()) == hash_tensors(projected.model.state_dict())
    record = read_checkpoint(projected.folder / 'iter_4.pth')['meta']['kdplugin']['projection']
    assert read_checkpoint(resumed.folder / 'iter_4.pth')['meta']['kdplugin']['projection'] == record


@pytest.mark.parametrize('how', ['by the tool', 'by mmengine'])
def test_a_resume_that_found_nothing_is_a_start(shared: Path, tmp_path: Path, plan: str, how: str) -> None:
    """mmengine's ``runner._resume`` is true then."""
    hooks = (hook(shared, plan), dict(type='mmengine.SeesTheStart'))
    config = run_config(shared, tmp_path, segmentor(), hooks=hooks, iters=1)
    config.resume = how == 'by mmengine'
    begun = start(config, resume='auto' if how == 'by the tool' else None)
    assert begun.runner._resume is (how == 'by mmengine')
    name = 'backbone.layer4.1.conv2.weight'
    assert torch.equal(start_of(begun).weights[name], expected(shared)[name])


def test_a_whole_model_is_a_target(shared: Path, tmp_path: Path) -> None:
    entries = [
        Entry(f'{part}.{entry.target}', entry.shape, 'projected', tuple(
            Piece(f'{part}.{piece.source}', piece.steps) for piece in entry.pieces
        ))
        for part in ('backbone', 'decode_head')
        for entry in first_channels(part).entries
    ]  # fmt: skip
    ProjectionPlan('segmentor.pth', 'whole', tuple(entries)).save(tmp_path / 'plan.json')
    begun = run(shared, tmp_path, segmentor(), hook(shared, str(tmp_path / 'plan.json'), target=''), iters=1)
    wide = read_checkpoint(shared / 'segmentor.pth')['state_dict']
    assert torch.equal(start_of(begun).weights['decode_head.conv_seg.weight'], wide['decode_head.conv_seg.weight'])


def test_a_plan_is_made_where_none_is_given(shared: Path, tmp_path: Path) -> None:
    """Truncation keeps the first channels, which slices of the teacher are, too; the head is the plain one's."""
    projection = dict(type=PROJECTION, source=str(shared / 'segmentor.pth'), method='truncate')
    begun = run(shared, tmp_path, segmentor(), projection, iters=1)
    for name, value in expected(shared).items():
        assert torch.equal(start_of(begun).weights[name], value), name
    made = ProjectionPlan.load(tmp_path / 'weight_projection' / 'plan.json')
    assert {piece.source for entry in made.entries for piece in entry.pieces} == {e.target for e in made.entries}


def test_an_edited_plan_is_carried_out(shared: Path, tmp_path: Path) -> None:
    """The JSON that a run wrote, with one tensor left to its initialisation."""
    projection = dict(type=PROJECTION, source=str(shared / 'segmentor.pth'), method='truncate')
    run(shared, tmp_path / 'first', segmentor(), projection, iters=1)
    made = ProjectionPlan.load(tmp_path / 'first' / 'weight_projection' / 'plan.json')
    left = Entry('conv1.weight', (8, 3, 7, 7), 'random', reason='by hand')
    made.replaced(left).save(tmp_path / 'plan.json')
    begun = run(shared, tmp_path / 'second', segmentor(), dict(projection, plan=str(tmp_path / 'plan.json')), iters=1)
    weights, wanted = start_of(begun).weights, expected(shared)
    assert [name for name in wanted if not torch.equal(weights[name], wanted[name])] == ['backbone.conv1.weight']


def test_testing_a_config_with_the_hook_is_not_a_start(shared: Path, tmp_path: Path, plan: str) -> None:
    """tools/test.py loads what it tests through load_from."""
    trained = run(shared, tmp_path / 'train', segmentor(), hook(shared, plan), iters=2)
    config = run_config(shared, tmp_path / 'test', segmentor(), hooks=(hook(shared, plan),), validate_every=2)
    config.update(
        test_dataloader=config.val_dataloader, test_cfg=dict(type='TestLoop'), test_evaluator=config.val_evaluator
    )
    assert 'mIoU' in launch.test(launch.prepare(config), str(trained.folder / 'iter_2.pth'))


# mistakes


def test_load_from_beside_projection_is_refused(shared: Path, tmp_path: Path, plan: str) -> None:
    config = run_config(shared, tmp_path, segmentor(), hooks=(hook(shared, plan),))
    config.load_from = str(shared / 'segmentor.pth')
    message = r"either WeightProjectionHook or load_from but got both \(load_from='.*segmentor\.pth'\): one would overw"
    with pytest.raises(ConfigError, match=message):
        start(config)


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(target='bakcbone'), PathError, r"module path of the model but got 'bakcbone'\. Did you mean 'backbone'"),
        (dict(target='decode_head'), CheckpointError, r'a plan for the \d+ tensors of FCNHead but \d+ do not fit'),
        (dict(source='nowhere.pth'), CheckpointError, r'nowhere\.pth does not exist'),
        (dict(prefix='neck.'), CheckpointError, r"names that begin with 'neck\.' in .*segmentor\.pth but none does"),
    ],
)
def test_what_does_not_fit_ends_the_run(
    shared: Path, tmp_path: Path, plan: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(shared, tmp_path, segmentor(), dict(hook(shared, plan), **settings), iters=1)
    assert not (tmp_path / 'weight_projection').exists()


def test_too_little_coverage_ends_the_run(shared: Path, tmp_path: Path) -> None:
    whole = first_channels()
    first = whole.entries[0]
    whole.replaced(Entry(first.target, first.shape, 'random', reason='by hand')).save(tmp_path / 'plan.json')
    message = (
        r'to give 100\.0 % of the parameters of backbone but got 9\d\.\d %; 1 of \d+ tensors .*conv1\.weight .*by hand'
    )
    with pytest.raises(CheckpointError, match=message):
        run(shared, tmp_path, segmentor(), hook(shared, str(tmp_path / 'plan.json'), min_coverage=1.0), iters=1)


def test_a_plan_that_loads_nothing_ends_the_run(shared: Path, tmp_path: Path) -> None:
    entries = [Entry(entry.target, entry.shape, 'random') for entry in first_channels().entries]
    ProjectionPlan('a', 'backbone', tuple(entries)).save(tmp_path / 'plan.json')
    with pytest.raises(CheckpointError, match=r'give 0\.0 % of the parameters of backbone but got 0\.0 %'):
        run(shared, tmp_path, segmentor(), hook(shared, str(tmp_path / 'plan.json'), min_coverage=0.0), iters=1)


def test_a_projection_that_changes_nothing_ends_the_run(shared: Path, tmp_path: Path) -> None:
    own = build(segmentor(16)).backbone.state_dict()
    entries = [Entry(name, tuple(value.shape), 'exact', (Piece(name),)) for name, value in own.items()]
    ProjectionPlan('segmentor.pth', 'backbone', tuple(entries)).save(tmp_path / 'plan.json')
    model = segmentor(16)
    model['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(shared / 'segmentor.pth'), prefix='backbone.'
    )
    with pytest.raises(
        CheckpointError, match=r'to change the model but all \d+ tensors are as they were\. Remove the hook'
    ):
        run(shared, tmp_path, model, hook(shared, str(tmp_path / 'plan.json')), iters=1)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(min_coverage=90), r'Expected min_coverage from 0 to 1 but got 90\. Give for example 0\.9\.'),
        (dict(plan='plans/none.json'), r"Expected plan='auto' or a file but plans/none\.json does not exist\."),
    ],
)
def test_settings_are_checked_when_the_hook_is_built(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightProjectionHook(source='teacher.pth', **settings)


def test_a_source_that_would_run_code_is_refused(shared: Path, tmp_path: Path, plan: str, bomb: Any) -> None:
    torch.save({'state_dict': {'w': torch.ones(1)}, 'hook': bomb}, tmp_path / 'bomb.pth')
    with pytest.raises(CheckpointError, match=r'Nothing was executed\.'):
        run(shared, tmp_path, segmentor(), dict(hook(shared, plan), source=str(tmp_path / 'bomb.pth')), iters=1)
    assert not bomb.marker.exists()


def test_the_hook_is_registered_under_its_prefix() -> None:
    assert isinstance(HOOKS.build(dict(type=PROJECTION, source='teacher.pth')), WeightProjectionHook)
