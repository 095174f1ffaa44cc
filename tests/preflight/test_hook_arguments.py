from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.hook_arguments import check_hook_arguments

PIPELINE = [dict(type='Mosaic', img_scale=(64, 64)), dict(type='PackDetInputs')]


def hooks(kind: str, **settings: Any) -> dict[str, Any]:
    loader = dict(dataset=dict(type='MultiImageMixDataset', pipeline=PIPELINE))
    return dict(train_dataloader=loader, custom_hooks=[dict(type=kind, **settings)])


def test_what_can_be_done_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / 'plan.json').touch()
    for settings in (
        dict(method='svd', layers='uniform', min_coverage=0.9, plan='auto'),
        dict(layers=[0, 2], plan=str(tmp_path / 'plan.json'), min_coverage=0),
        {},
    ):
        assert says(check_hook_arguments, hooks('kdplugin.WeightProjectionHook', source='a.pth', **settings)) == []
    assert says(check_hook_arguments, hooks('YOLOXModeSwitchHook', skip_type_keys=('Mosaic', 'MixUp'))) == []
    assert says(check_hook_arguments, hooks('YOLOXModeSwitchHook')) == []


@pytest.mark.parametrize(
    ('settings', 'key', 'message'),
    [
        (dict(method='SVD'), 'method', 'Choose one.'),
        (dict(layers='evenly'), 'layers', "but got 'evenly'"),
        (dict(layers=[0, 'last']), 'layers', 'Write numbers from 0 on.'),
        (dict(min_coverage=90), 'min_coverage', 'Write min_coverage=0.9.'),
        (dict(plan='gone.json'), 'plan', 'Correct plan.'),
    ],
)
def test_projections_that_cannot_be_made(settings: dict[str, Any], key: str, message: str) -> None:
    ((level, where, told),) = says(
        check_hook_arguments, hooks('kdplugin.WeightProjectionHook', source='a.pth', **settings)
    )
    assert (level, where) == ('error', f'custom_hooks.0.{key}')
    assert message in told


def test_a_misspelt_transform_stays_on() -> None:
    ((level, where, told),) = says(check_hook_arguments, hooks('YOLOXModeSwitchHook', skip_type_keys=('Mosiac',)))
    assert (level, where) == ('error', 'custom_hooks.0.skip_type_keys')
    assert "Did you mean 'Mosaic'?" in told
