"""FGD with its global part: values of the authors' code, the block's start, and training on mmdet.

N image, C channel, H W position.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, distilled
from method_laws import LAWS, batch_of, gradients_of_the_pair_alone, learner, padding_does_not_count
from method_laws import it_trains_the_student_and_its_own_parameters_only as it_trains
from method_models import dense
from torch import Tensor, nn

from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.methods import FGD, StepContext
from kdplugin.distill.methods.fgd import GlobalContext, relation_error
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError
from kdplugin.losses import focal_distance

GOLDEN = json.loads((Path(__file__).parents[2] / 'golden/fgd_global.json').read_text())['cases']
PAIR = dict(type='kdplugin.FGD', tap='neck')
BOXES = [torch.tensor([[0.0, 0.0, 10.0, 7.0], [2.0, 8.0, 12.0, 31.0]]), torch.tensor([[3.0, 10.0, 12.0, 20.0]])]
FOCAL = dict(temperature=0.5, foreground=1.0, background=0.5, attention=1.0)


class Sample(dict):
    img_shape = (32, 24)


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def owned(*shapes: tuple[int, ...], **settings: Any) -> Any:
    method = FGD('p', tap='x', **settings)
    found = ProbeResult('tensor', {'x': list(shapes)}, frozenset())
    return method, method.prepare(found, found, nn.Identity(), None)  # type: ignore[arg-type]


def context(student: list[Tensor], teacher: list[Tensor], module: nn.Module, **more: Any) -> StepContext:
    given = dict(boxes=BOXES, image_size=(32, 32), **more)
    return StepContext({'x': student}, {'x': teacher}, nn.Identity(), None, module, **given)  # type: ignore[arg-type]


def shaken(module: nn.Module) -> nn.Module:
    """Move every parameter: a fresh block is the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return module


@pytest.mark.parametrize('case', GOLDEN, ids=lambda case: case['name'])
def test_sums_of_the_authors_code(case: dict[str, Any]) -> None:
    """They sum over channels and positions and divide by the images: C H W times our mean."""
    student, teacher = double(case['student']), double(case['teacher'])
    weights = {key: double(value) for key, value in case['weights'].items()}
    blocks = nn.ModuleList([GlobalContext(student.shape[1]).double() for _ in range(2)])
    for block, side in zip(blocks, 'st', strict=True):
        names = {f'conv_mask_{side}': 'attention', f'channel_add_conv_{side}': 'transform'}
        state = {}
        for key, value in weights.items():
            first, _, rest = key.partition('.')
            if first in names:
                state[f'{names[first]}.{rest}'] = value
        block.load_state_dict(state, strict=True)
    value = relation_error(student, teacher, blocks).mean()
    assert float(value.detach()) * teacher[0].numel() == pytest.approx(case['value'], rel=1e-9)


def test_a_block_begins_as_the_identity_and_can_leave_it() -> None:
    features = random(2, 4, 3, 5)
    block = GlobalContext(4)
    assert torch.equal(block(features), features)
    block(features).square().mean().backward()
    assert block.transform[-1].weight.grad.abs().max() > 0
    assert not torch.equal(shaken(block)(features), features)


def test_zero_at_identity_before_any_step() -> None:
    features = [random(2, 4, 4, 4), random(2, 4, 2, 2)]
    method, module = owned(*(tuple(level.shape) for level in features))
    assert method.distance(context(features, features, module)) == 0


def test_the_sum_of_its_parts() -> None:
    """Focal part: mean over levels. Global part: mean over the positions of all levels, times relation."""
    student = [random(2, 4, 4, 4, seed=1), random(2, 4, 2, 2, seed=2)]
    teacher = [random(2, 4, 4, 4, seed=3), random(2, 4, 2, 2, seed=4)]
    method, module = owned((2, 4, 4, 4), (2, 4, 2, 2), relation=3.0)
    shaken(module)
    focal = [
        focal_distance(one, other, boxes=BOXES, image_size=(32, 32), **FOCAL)
        for one, other in zip(student, teacher, strict=True)
    ]
    errors = [
        relation_error(one, other, blocks).sum()
        for blocks, one, other in zip(module.levels, student, teacher, strict=True)
    ]
    expected = sum(focal) / 2 + 3.0 * sum(errors) / (2 * (16 + 4))
    torch.testing.assert_close(method.distance(context(student, teacher, module)), expected)


def test_the_weights_that_the_docstring_gives() -> None:
    assert round(1e-3 * 256 * 7 * 5, 1) == 9.0
    assert round(5e-4 * 256 * 5, 2) == 0.64
    assert round(5e-6 * 256 * 22400, 1) == 28.7


def test_both_blocks_learn_and_the_teacher_does_not() -> None:
    student, teacher = (random(2, 4, 4, 4, seed=seed).requires_grad_() for seed in (1, 2))
    method, module = owned((2, 4, 4, 4))
    shaken(module)
    method.distance(context([student], [teacher], module)).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
    assert all(value.grad.abs().max() > 0 for name, value in module.named_parameters() if 'attention.bias' not in name)


def test_padding_does_not_count() -> None:
    method, module = owned((2, 4, 4, 8), relation=2.0)
    shaken(module)
    samples = dict(data_samples=[Sample(img_shape=0)] * 2)
    boxes = lambda ours, theirs: context([ours], [theirs], module, **samples)  # noqa: E731
    padding_does_not_count(method, boxes, random(2, 4, 4, 8), random(2, 4, 4, 8, seed=1))


def test_a_padded_image_counts_as_the_image_alone() -> None:
    method, module = owned((2, 4, 4, 8), relation=2.0)
    shaken(module)
    student, teacher = random(2, 4, 4, 8), random(2, 4, 4, 8, seed=1)
    padded = method.distance(context([student], [teacher], module, data_samples=[Sample(img_shape=0)] * 2))
    alone = StepContext(
        {'x': [student[..., :6]]}, {'x': [teacher[..., :6]]}, nn.Identity(), None, module,  # type: ignore[arg-type]
        image_size=(32, 24), boxes=BOXES,
    )  # fmt: skip
    torch.testing.assert_close(padded, method.distance(alone))


def test_settings_and_their_errors(shared: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a finite temperature of pair 'p' > 0 but got 0\. The paper"):
        FGD('p', tap='x', temperature=0)
    with pytest.raises(ConfigError, match=r"detector of mmdet as student of pair 'p', because FGD needs boxes"):
        build(distilled(shared, dict(p=dict(type='kdplugin.FGD', tap='backbone'))))


def test_training_a_detector(tmp_path: Path) -> None:
    model = learner(tmp_path, PAIR, dense('GFL'), dense('GFL', width=16, neck=24))
    assert len(adapters_of(model)['p'].levels) == 5
    gradients_of_the_pair_alone(model, batch_of(), 'neck.', own=True)
    it_trains(model, dense('GFL'), batch_of(padded=True))
    for law in LAWS:
        law(model, batch_of())
