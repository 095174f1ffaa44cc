"""torchvision's FCN and mmseg's FCN must be one function after conversion."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.torchvision_fcn import fcn_from_torchvision

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs/_base_/models/fcn_r50_torchvision.py'


@pytest.fixture(scope='module')
def source() -> nn.Module:
    """Return torchvision's FCN with random weights and random running statistics."""
    torch.manual_seed(0)
    model = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def test_mmseg_computes_torchvisions_logits(source: nn.Module) -> None:
    pytest.importorskip('mmseg')
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    target = MODELS.build(Config.fromfile(CONFIG).model).eval()
    target.load_state_dict(fcn_from_torchvision(source.state_dict()), strict=True)
    images = torch.randn(2, 3, 72, 104)
    with torch.no_grad():
        expected = source(images)
        levels = target.backbone(images)
        heads = {'out': target.decode_head, 'aux': target.auxiliary_head}
        for name, head in heads.items():
            logits = F.interpolate(head(levels), size=images.shape[2:], mode='bilinear', align_corners=False)
            assert expected[name].std() > 0.05
            torch.testing.assert_close(logits, expected[name], atol=1e-4, rtol=0)


def test_every_tensor_keeps_its_value(source: nn.Module) -> None:
    given = source.state_dict()
    converted = fcn_from_torchvision(given)
    assert len(converted) == len(given) == 334
    parameters = {name for name, _ in source.named_parameters()}
    assert sum(given[name].numel() for name in parameters) == 35_322_218
    assert [value.data_ptr() for value in converted.values()] == [value.data_ptr() for value in given.values()]
    assert torch.equal(converted['decode_head.convs.0.bn.running_var'], given['classifier.1.running_var'])
    assert torch.equal(converted['auxiliary_head.conv_seg.bias'], given['aux_classifier.4.bias'])


def test_any_class_count_and_no_auxiliary_head() -> None:
    given = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5).state_dict()
    converted = fcn_from_torchvision(given)
    assert converted['decode_head.conv_seg.weight'].shape == (5, 512, 1, 1)
    assert not any(name.startswith('auxiliary_head') for name in converted)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


def test_missing_tensor_is_named(source: nn.Module) -> None:
    state = without(source.state_dict(), 'backbone.layer3.2.bn1.running_var')
    with pytest.raises(
        CheckpointError,
        match=r'Expected the 334 .* got 333: 1 \(backbone\.layer3\.2\.bn1\.running_var\) missing, none left',
    ):
        fcn_from_torchvision(state)


def test_left_over_tensor_is_named(source: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r'none missing, 1 \(classifier\.7\.weight\) left over'):
        fcn_from_torchvision({**source.state_dict(), 'classifier.7.weight': torch.zeros(1)})


def test_prefix_is_told_apart_from_torchvisions_names(source: nn.Module) -> None:
    state = {f'model.{name}': value for name, value in source.state_dict().items()}
    with pytest.raises(CheckpointError, match=r'missing, 334 \(model\.backbone\.conv1\.weight, .*without a prefix'):
        fcn_from_torchvision(state)


def test_another_backbone_is_refused(source: nn.Module) -> None:
    state = {**source.state_dict(), 'backbone.conv1.weight': torch.zeros(64, 1, 7, 7)}
    with pytest.raises(
        CheckpointError,
        match=r'1 \(backbone\.conv1\.weight\) of another shape, .* \(64, 1, 7, 7\) for \(64, 3, 7, 7\)',
    ):
        fcn_from_torchvision(state)


def run_tool(*arguments: str | Path) -> int:
    """Run the tool in this process and return its exit code."""
    main = runpy.run_path(str(ROOT / 'tools/convert_teacher.py'))['main']
    return main([str(argument) for argument in arguments])


def test_tool_writes_what_the_function_returns(
    tmp_path: Path, source: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(source.state_dict(), tmp_path / 'torchvision.pth')
    assert run_tool(tmp_path / 'torchvision.pth', tmp_path / 'mmseg.pth') == 0
    assert '334 of 334 tensors' in capsys.readouterr().out
    written = torch.load(tmp_path / 'mmseg.pth', weights_only=True)['state_dict']
    wanted = fcn_from_torchvision(source.state_dict())
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[name], value) for name, value in wanted.items())


def test_tool_names_the_mistake_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'other.pth')
    assert run_tool(tmp_path / 'other.pth', tmp_path / 'mmseg.pth') == 1
    assert 'error: Expected the 326 tensors' in capsys.readouterr().err
    assert not (tmp_path / 'mmseg.pth').exists()
