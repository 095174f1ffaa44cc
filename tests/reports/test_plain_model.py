from __future__ import annotations

from mmengine.config import Config
from synthetic_runs import TinySegmentor, distilled, recipe

from kdplugin.reports.plain_model import build_plain_model


def test_the_model_is_built_in_eval_mode_with_the_students_class() -> None:
    for config in (Config(recipe()), Config(distilled())):
        model = build_plain_model(config)
        assert type(model) is TinySegmentor
        assert not model.training
