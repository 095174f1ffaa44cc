"""The curves of distillation reach every visualizer backend, without a setting beyond the backend itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engine_fixtures import kd_segmentor
from engine_fixtures import shared as shared
from engine_runs import Run, run_config, start
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend

PAIRS = ('feature', 'logits')
CURVES = {f'{what.format(pair)}' for pair in PAIRS for what in ('loss_kd_{}', 'kd_{}_raw', 'kd_{}_weight')} | {
    'kd_task'
}
ITERS = 3
Written = dict[tuple[str, int], float]


@VISBACKENDS.register_module()
class KeepScalars(BaseVisBackend):
    """A backend of somebody else's: it keeps the scalars."""

    written: Written = {}

    @property
    def experiment(self) -> Any:
        return self

    def _init_env(self) -> None:
        pass

    def add_config(self, config: Any, **kwargs: Any) -> None:
        pass

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        pass

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        pass

    def add_scalar(self, name: str, value: float, step: int = 0, **kwargs: Any) -> None:
        self.written[name, step] = float(value)

    def add_scalars(
        self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        for name, value in scalar_dict.items():
            self.add_scalar(name, value, step)


class Writer:
    """What of TensorBoard's SummaryWriter mmengine calls."""

    written: Written = {}

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add_text(self, tag: str, text: str) -> None:
        pass

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written[tag, step] = float(value)

    def close(self) -> None:
        pass


def trained(shared: Path, work_dir: Path, backend: str) -> Run:
    backends = [dict(type='LocalVisBackend'), dict(type=backend)]
    visualizer = dict(type='SegLocalVisualizer', vis_backends=backends, name=f'curves-{work_dir.name}-{backend}')
    config = run_config(shared, work_dir, kd_segmentor(shared), iters=ITERS, save_every=ITERS, visualizer=visualizer)
    config.pop('log_processor')  # as in a recipe that has none
    config.log_processor = dict(by_epoch=False)
    return start(config)


def curves_are_those_of_the_training(written: Written, run: Run) -> None:
    names = {name for name, _ in written}
    assert names >= CURVES
    for name in CURVES:
        for step in range(1, ITERS + 1):
            logged = run.scalars()[step][name]
            assert written[name, step] == pytest.approx(logged, rel=1e-6)
            if not name.startswith('loss'):  # others are averaged over the window
                assert logged == pytest.approx(run.steps[step - 1][name], rel=1e-5)


def test_a_registered_backend_gets_them(shared: Path, tmp_path: Path) -> None:
    KeepScalars.written.clear()
    run = trained(shared, tmp_path, 'mmengine.KeepScalars')
    curves_are_those_of_the_training(KeepScalars.written, run)
    assert KeepScalars.written['kd_feature_weight', 1] == 0.5


def test_tensorboard_gets_them(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's own backend, with a stand-in for the writer: the package need not be installed."""
    module = ModuleType('torch.utils.tensorboard')
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Writer.written.clear()
    run = trained(shared, tmp_path, 'TensorboardVisBackend')
    curves_are_those_of_the_training(Writer.written, run)


@pytest.mark.skipif(importlib.util.find_spec('tensorboard') is None, reason='tensorboard is not installed')
def test_the_files_of_tensorboard_have_them(shared: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(shared, tmp_path, 'TensorboardVisBackend')
    events = EventAccumulator(str(Path(run.runner.log_dir) / 'vis_data')).Reload()
    written = {(name, event.step): event.value for name in events.Tags()['scalars'] for event in events.Scalars(name)}
    curves_are_those_of_the_training(written, run)
