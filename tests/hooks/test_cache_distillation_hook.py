"""The teacher's output cache in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import distilled, feature_and_logit_pairs
from engine_runs import Run, run_config, start

from kdplugin.errors import ConfigError

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(48, 48))]


def run(shared: Path, folder: Path, cache: dict[str, Any] | None, pipeline: list[dict[str, Any]] = LOAD) -> Run:
    """Train for two passes over eight images in batches of two."""
    model = distilled(shared, feature_and_logit_pairs())
    if cache:
        model['teacher']['cache'] = cache
    config = run_config(shared, folder, model, iters=8, save_every=8, hooks=(dict(type='mmengine.WatchTeacher'),))
    config.train_dataloader.dataset.pipeline = [*pipeline, dict(type='PackSegInputs')]
    return start(config)


def test_the_second_pass_needs_no_teacher_and_trains_the_same(shared: Path, tmp_path: Path) -> None:
    plain = run(shared, tmp_path / 'plain', None)
    cached = run(shared, tmp_path / 'cached', dict(dir=str(tmp_path / 'cache'), max_bytes='100MB'))
    assert (plain.teacher_forwards, cached.teacher_forwards) == (8, 4)
    assert plain.steps.keys() == cached.steps.keys()
    for iteration, losses in plain.steps.items():
        for name in losses:
            assert cached.steps[iteration][name] == pytest.approx(losses[name], rel=1e-4), (iteration, name)


def test_a_random_pipeline_is_refused_before_the_first_step(shared: Path, tmp_path: Path) -> None:
    pipeline = [*LOAD, dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')]
    with pytest.raises(ConfigError, match=r'got mmseg\.RandomFlip\(prob=0\.5\), mmseg\.PhotoMetricDistortion\.'):
        run(shared, tmp_path, dict(dir=str(tmp_path / 'cache'), max_bytes='100MB'), pipeline)
