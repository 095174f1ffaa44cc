"""Two gloo processes project for themselves and begin with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

from engine_fixtures import segmentor, shared
from engine_runs import run_config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from projection_plans import expected, first_channels
from test_dist_train import call

from kdplugin.weights.reading.io import hash_tensors, read_checkpoint

__all__ = ['shared']

TESTS = Path(__file__).parents[1]


@HOOKS.register_module()
class NoteStart(Hook):
    """Write to ``startN.json`` what one process of several began with."""

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module
        note = dict(
            world_size=runner.world_size, backbone=hash_tensors(model.backbone.state_dict()),
            model=hash_tensors(model.state_dict()),
        )  # fmt: skip
        Path(runner.work_dir, f'start{runner.rank}.json').write_text(json.dumps(note))

    def after_train(self, runner: Runner) -> None:
        end = hash_tensors(dict(runner.model.module.named_parameters()))
        Path(runner.work_dir, f'end{runner.rank}.json').write_text(json.dumps(end))


def test_two_processes_begin_with_the_same_projected_weights(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'run'
    folder.mkdir()
    first_channels().save(tmp_path / 'plan.json')
    hook = dict(
        type='kdplugin.WeightProjectionHook', source=str(shared / 'segmentor.pth'), plan=str(tmp_path / 'plan.json')
    )
    config = run_config(
        shared, folder, segmentor(norm='SyncBN'), iters=2, ema=True, hooks=(hook, dict(type='mmengine.NoteStart'))
    )
    config.randomness.diff_rank_seed = True
    config.custom_imports = dict(imports=['test_dist_projection'], allow_failed_imports=False)
    config.dump(folder / 'config.py')
    done = call('dist_train.sh', folder / 'config.py', '2', PYTHONPATH=f'{TESTS}:{TESTS / "tools"}')
    assert done.returncode == 0, done.stderr[-3000:]
    began, ended = (
        [json.loads((folder / f'{what}{rank}.json').read_text()) for rank in range(2)] for what in ('start', 'end')
    )
    assert began[0] == began[1]
    assert began[0]['world_size'] == 2
    projected = {name.removeprefix('backbone.'): value for name, value in expected(shared).items()}
    assert began[0]['backbone'] == hash_tensors(projected)
    assert ended[0] == ended[1]
    assert (folder / 'weight_projection' / 'report.json').is_file()
    assert read_checkpoint(folder / 'iter_2.pth')['meta']['kdplugin']['projection']['coverage']['parameters'] == 1.0
