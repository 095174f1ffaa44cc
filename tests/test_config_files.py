from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from kdplugin.config_files import config_file, parse
from kdplugin.errors import ConfigError
from kdplugin.launch import build_runner, prepare, read_config
from kdplugin.package_files import CONFIGS

BASELINE = 'kdplugin::quickstart/baseline_digits.py'


@pytest.fixture
def inheriting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a user's config that inherits one of the package, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = ['{BASELINE}']\n"
        "model = dict(_delete_=True, type='kdplugin.Distiller', student=_base_.model, pairs=dict())\n"
    )
    return path


def test_a_config_of_a_package_is_found_by_its_name() -> None:
    assert config_file(BASELINE).resolve() == CONFIGS / 'quickstart' / 'baseline_digits.py'
    assert config_file('mmdet::gfl/gfl_r50_fpn_1x_coco.py').is_file()
    assert config_file('mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py').is_file()


def test_mmengine_itself_finds_it_too() -> None:
    assert get_config(BASELINE).to_dict() == Config.fromfile(CONFIGS / 'quickstart/baseline_digits.py').to_dict()


def test_a_path_stays_what_it_is(inheriting: Path) -> None:
    assert config_file('mine.py') == Path('mine.py')
    assert config_file(inheriting) == inheriting


@pytest.mark.parametrize(
    ('reference', 'reason'),
    [
        ('kdplugin::quickstart/gone.py', r'gone\.py" does not exist'),
        ('mmnone::quickstart/kd_digits.py', 'does not support to load mmnone config'),
        ('kdplugin::kd_digits.py', 'package name and relative config path'),
    ],
)
def test_a_reference_to_nothing(reference: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf'^Expected a config of an installed package but .*{reason}.*\. Check'):
        config_file(reference)


def test_a_path_to_nothing() -> None:
    with pytest.raises(ConfigError, match=r'Expected a config file but gone\.py does not exist\. Check the path'):
        config_file('gone.py')


def test_what_is_inherited_from_the_package_keeps_the_default_scope(inheriting: Path) -> None:
    assert '_scope_' in Config.fromfile(inheriting).pretty_text
    config = parse(inheriting)
    plain = parse(BASELINE)
    assert '_scope_' not in config.pretty_text
    assert config.model.pop('student') == plain.pop('model')
    assert {**config, 'model': 0} == {**plain, 'model': 0}


def test_scopes_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py']\nother = [dict(a=(_base_.model,))]\n")
    assert parse(path).other[0].a[0]._scope_ == 'mmdet'


def test_a_run_can_be_built_of_it(inheriting: Path) -> None:
    config = prepare(read_config(inheriting, {'log_level': 'ERROR'}))
    for loader in ('train', 'val', 'test'):
        for key in (f'{loader}_dataloader', f'{loader}_cfg', *([f'{loader}_evaluator'] if loader != 'train' else [])):
            config[key] = None
    config.optim_wrapper = config.param_scheduler = None
    kinds = {kind.__name__ for kind in type(build_runner(config).model).__mro__}
    assert {'DistilledStudent', 'EncoderDecoder'} < kinds
