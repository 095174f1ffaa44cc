from __future__ import annotations

from pathlib import Path

import mmengine.registry as roots
import pytest
from mmengine.registry import init_default_scope
from torch import nn

import kdplugin.registry  # noqa: F401 - makes the prefix known
from kdplugin.preflight.registries import current_scope, find_type, installed, known_names, suggestion


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


def test_types_are_found_as_mmengine_finds_them() -> None:
    assert find_type('ResNet', [roots.MODELS], None).__module__ == 'mmdet.models.backbones.resnet'
    assert find_type('ResNet', [roots.MODELS], 'mmseg').__module__ == 'mmseg.models.backbones.resnet'
    assert find_type('mmseg.ResNet', [roots.MODELS], None).__module__ == 'mmseg.models.backbones.resnet'
    assert find_type('kdplugin.PKDLoss', [roots.MODELS], None).__name__ == 'PKDLoss'
    assert find_type('torch.nn.Conv2d', [roots.MODELS], None) is nn.Conv2d
    assert find_type(nn.Conv2d, [roots.MODELS], None) is nn.Conv2d
    assert find_type('ResNett', [roots.MODELS], None) is None
    assert find_type('Resize', [roots.MODELS], None) is None
    assert current_scope() == 'mmdet'


@pytest.mark.parametrize('kind', ['os.system', 'subprocess.Popen', 'pathlib.Path.touch', 'builtins.exec', 'torch.save'])
def test_what_a_dotted_name_leads_to_is_no_type(kind: str) -> None:
    """mmengine would build whatever it finds; functions that are in no registry are none."""
    assert find_type(kind, [roots.MODELS], None) is None


def test_no_package_is_imported_to_see_whether_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'evil').mkdir()
    (tmp_path / 'evil' / '__init__.py').write_text(f'open({str(tmp_path / "executed")!r}, "w")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not installed('evil.Model')
    assert not installed('gone.Model')
    assert installed('mmdet.ResNet')
    assert installed('ResNet')
    assert find_type('evil.Model', [roots.MODELS], None) is None
    assert not (tmp_path / 'executed').exists()
    (tmp_path / 'evil' / 'registry.py').touch()
    assert installed('evil.Model')


def test_a_type_of_another_scope_is_suggested_with_its_prefix() -> None:
    init_default_scope('mmseg')
    assert suggestion('GFL', [roots.MODELS], None) == " Did you mean 'mmdet.GFL'?"
    init_default_scope('mmdet')
    assert "'PackDetInputs'" in suggestion('PackDetInput', [roots.TRANSFORMS], None)
    assert 'kdplugin.PKDLoss' in known_names(roots.MODELS, None)
    assert 'ResNet' in known_names(roots.MODELS, None)
