"""What keeps projected weights from being there when training begins is told before anything is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor
from engine_runs import run_config
from mmengine.config import Config
from projection_plans import first_channels

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.projection import check_projection, check_projection_source
from kdplugin.preflight.verify import verify


def config_of(shared: Path, folder: Path, **settings: Any) -> Config:
    hook = dict(type='kdplugin.WeightProjectionHook', source=str(shared / 'segmentor.pth'), **settings)
    return run_config(shared, folder, segmentor(), hooks=(hook,))


def checked(config: Config) -> list[tuple[str, str]]:
    found = Findings()
    check_projection(found, config, build(segmentor()))
    assert {finding.where for finding in found} <= {'custom_hooks'}
    return [(finding.level, finding.message) for finding in found]


def test_a_possible_projection_is_told_with_its_coverage_and_changes_nothing(shared: Path, tmp_path: Path) -> None:
    student, found = build(segmentor()), Findings()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    state = torch.get_rng_state()
    check_projection(found, config_of(shared, tmp_path), student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    note = f'backbone from {shared / "segmentor.pth"}: 100.0 % of the tensors, 100.0 % of the parameters loaded.'
    assert (found[0].level, found[0].message) == ('note', note)
    assert not found.errors


def test_a_config_without_the_hook_is_not_spoken_of(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, segmentor())
    config.custom_hooks = [*config.get('custom_hooks', ()), dict(type='NumClassCheckHook')]
    assert checked(config) == []


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(source='nowhere.pth'), 'nowhere.pth does not exist'),
        (dict(target='bakcbone'), "Did you mean 'backbone'"),
        (dict(min_coverage=90), 'Expected min_coverage from 0 to 1 but got 90.'),
        (dict(layers='unifrom'), "Did you mean 'uniform'"),
        (dict(method='svdd'), "but got 'svdd'"),
        (dict(plan='none.json'), "Expected plan='auto' or a file but none.json does not exist."),
        (dict(prefix='neck.'), "names that begin with 'neck.' in"),
        (dict(sauce='teacher.pth'), "unexpected keyword argument 'sauce'"),
    ],
)
def test_what_would_end_the_run_is_an_error(
    shared: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    config = config_of(shared, tmp_path)
    config.custom_hooks[0].update(settings)
    ((level, said),) = checked(config)
    assert level == 'error'
    assert message in said


def test_too_little_coverage_is_an_error(shared: Path, tmp_path: Path) -> None:
    plan = first_channels('decode_head')
    plan.save(tmp_path / 'plan.json')
    (said,) = checked(config_of(shared, tmp_path, plan=str(tmp_path / 'plan.json')))
    assert said[0] == 'error'
    assert 'a plan for the' in said[1]
    (said,) = checked(config_of(shared, tmp_path, target='', prefix='backbone.', min_coverage=1.0))
    assert said[0] == 'error'
    assert 'to give 100.0 % of the parameters of EncoderDecoder but got' in said[1]


def test_load_from_beside_it_is_an_error_unless_the_run_resumes(shared: Path, tmp_path: Path) -> None:
    config = config_of(shared, tmp_path)
    config.load_from = 'iter_1.pth'
    levels = dict(checked(config))
    assert 'either WeightProjectionHook or load_from but got both' in levels['error']
    config.resume = True
    assert 'error' not in dict(checked(config))


def test_quantised_damaged_and_foreign_files_are_errors(shared: Path, tmp_path: Path, bomb: Any) -> None:
    state = build(segmentor(16)).state_dict()
    codes = {name: value.to(torch.int8) if value.ndim > 1 else value for name, value in state.items()}
    torch.save(codes, tmp_path / 'int8.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'int8.pth').read_bytes()[:500])
    torch.save({'state_dict': state, 'hook': bomb}, tmp_path / 'bomb.pth')
    for file, message in (
        ('int8.pth', 'Use the checkpoint from before quantisation.'),
        ('cut.pth', 'is damaged'),
        ('bomb.pth', 'Nothing was executed.'),
    ):
        config = config_of(shared, tmp_path)
        config.custom_hooks[0].source = str(tmp_path / file)
        ((level, said),) = checked(config)
        assert level == 'error'
        assert message in said
    assert not bomb.marker.exists()


def test_what_is_downloaded_later_is_said_to_be_unchecked(shared: Path, tmp_path: Path) -> None:
    config = config_of(shared, tmp_path)
    config.custom_hooks[0].source = 'torchvision://resnet50'
    assert checked(config) == [
        ('note', 'not checked: torchvision://resnet50, which is downloaded when training begins.')
    ]


def test_verify_asks(shared: Path, tmp_path: Path) -> None:
    config = config_of(shared, tmp_path, min_coverage=0.5)
    config.custom_hooks[0].source = 'nowhere.pth'
    errors = [(finding.where, finding.message) for finding in verify(config) if finding.level == 'error']
    assert [where for where, _ in errors] == ['custom_hooks.0.source']
    assert 'nowhere.pth does not exist' in errors[0][1]


def test_the_source_is_looked_for_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / 'there.pth').touch()

    def of(source: str, **more: Any) -> list[tuple[str, str]]:
        found = Findings()
        hook = dict(type='kdplugin.WeightProjectionHook', source=source)
        check_projection_source(found, Config(dict(custom_hooks=[hook], **more)))
        return [(one.where, one.message) for one in found.errors]

    for source in (str(tmp_path / 'there.pth'), str(tmp_path), 'torchvision://resnet50', 'org/name', 'resnet50'):
        assert of(source) == []
    assert of(str(tmp_path / 'there.pth'), load_from='a.pth', resume=True) == []
    ((where, message),) = of(str(tmp_path / 'thre.pth'))
    assert where == 'custom_hooks.0.source'
    assert "there.pth'? Correct source." in message
    ((where, message),) = of(str(tmp_path), load_from='a.pth')
    assert (where, 'either WeightProjectionHook or load_from' in message) == ('custom_hooks', True)
