"""MGD: values of the authors' code, masks of its own generator, and training on mmdet and mmseg.

N image, C channel, H W position.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import all_tensors, build, distilled, segmentation_batch, segmentor
from engine_runs import run_config, start
from method_laws import LAWS, batch_of, gradients_of_the_pair_alone, learner
from method_laws import it_trains_the_student_and_its_own_parameters_only as it_trains
from method_models import dense
from torch import Tensor, nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.methods import MGD, StepContext
from kdplugin.distill.methods.mgd import Generators, generation_error, random_mask
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError
from kdplugin.weights.reading.io import hash_tensors

GOLDEN = json.loads((Path(__file__).parents[2] / 'golden/mgd.json').read_text())['cases']
PAIR = dict(type='kdplugin.MGD', tap='neck')


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def owned(shapes: list[tuple[int, ...]], student: list[tuple[int, ...]] | None = None, **settings: Any) -> Any:
    """Return a method on tap 'x' and what it owns for maps of these shapes."""
    method = MGD('p', tap='x', **settings)
    ours, theirs = (ProbeResult('tensor', {'x': side}, frozenset()) for side in (student or shapes, shapes))
    torch.manual_seed(0)
    return method, method.prepare(ours, theirs, nn.Identity(), None)  # type: ignore[arg-type]


def context(student: list[Tensor], teacher: list[Tensor], module: nn.Module, **more: Any) -> StepContext:
    return StepContext({'x': student}, {'x': teacher}, nn.Identity(), None, module, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize('case', GOLDEN, ids=lambda case: case['name'])
def test_sums_of_the_authors_code(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They sum over channels and positions and divide by the images: C H W times our mean."""
    student, teacher = double(case['student']), double(case['teacher'])
    method, module = owned([tuple(teacher.shape)], [tuple(student.shape)])
    module.double()
    weights = {key: double(value) for key, value in case['weights'].items()}
    module.levels[0].load_state_dict({key[11:]: value for key, value in weights.items() if key.startswith('gen')})
    assert (module.adapters is None) == (case['name'] == 'same_width')
    if module.adapters is not None:
        module.adapters[0].load_state_dict({key[6:]: value for key, value in weights.items() if key.startswith('al')})
    monkeypatch.setattr('kdplugin.distill.methods.mgd.random_mask', lambda *args: double(case['mask']))
    value = method.distance(context([student], [teacher], module))
    assert float(value) * teacher[0].numel() == pytest.approx(case['value'], rel=1e-9)


def test_the_weight_that_the_docstring_gives() -> None:
    """The authors' alpha times C and the positions of all levels, in one sum over levels."""
    torch.manual_seed(0)
    shapes = [(2, 3, 4, 6), (2, 3, 2, 3)]
    method, module = owned(shapes, mask_ratio=0.0)
    student, teacher = [torch.randn(shape) for shape in shapes], [torch.randn(shape) for shape in shapes]
    theirs = sum(
        (layer(one) - other).square().sum() / 2
        for layer, one, other in zip(module.levels, student, teacher, strict=True)
    )
    ours = method.distance(context(student, teacher, module))
    torch.testing.assert_close(2e-5 * theirs, 2e-5 * 3 * (24 + 6) * ours)
    positions = sum(h * w for h, w in ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11)))
    assert positions == 22400
    assert round(2e-5 * 256 * positions) == 115
    assert round(5e-7 * 256 * sum(h * w for h, w in ((200, 336), (100, 168), (50, 84), (25, 42))), 1) == 11.4
    assert round(2e-5 * 2048 * 64 * 64) == 168


def test_a_generator_that_does_nothing_finds_nothing() -> None:
    features = torch.randn(1, 3, 4, 5)
    assert not generation_error(features, features, torch.ones(1, 1, 4, 5), nn.Identity()).any()
    hidden = generation_error(features, features, torch.zeros(1, 1, 4, 5), nn.Identity())
    torch.testing.assert_close(hidden, features.square().mean(1))
    with pytest.raises(TapError, match='Expected student and teacher tensors of one shape'):
        generation_error(features, features[:, :2], torch.ones(1, 1, 4, 5), nn.Identity())


def test_hidden_features_have_no_influence() -> None:
    torch.manual_seed(0)
    student, teacher, mask = torch.randn(1, 3, 6, 6), torch.randn(1, 3, 6, 6), torch.ones(1, 1, 6, 6)
    mask[..., :3] = 0
    student.requires_grad_()
    layer = nn.Conv2d(3, 3, 3, padding=1)
    (gradient,) = torch.autograd.grad(generation_error(student, teacher, mask, layer).mean(), student)
    assert not gradient[..., :3].any()
    assert gradient[..., 3:].any()


@pytest.mark.parametrize('ratio', [0.0, 0.45, 0.65])
def test_share_of_hidden_positions(ratio: float) -> None:
    mask = random_mask(torch.zeros(4, 2, 50, 50), ratio, torch.Generator().manual_seed(0))
    assert mask.shape == (4, 1, 50, 50)
    assert float(1 - mask.mean()) == pytest.approx(ratio, abs=0.02)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def masks_drawn(monkeypatch: pytest.MonkeyPatch, module: Generators, steps: int, **settings: Any) -> list[Tensor]:
    seen: list[Tensor] = []
    method = MGD('p', tap='x', **settings)

    def keep(*args: Any) -> Tensor:
        seen.append(random_mask(*args))
        return seen[-1]

    monkeypatch.setattr('kdplugin.distill.methods.mgd.random_mask', keep)
    for _ in range(steps):
        method.distance(context([torch.ones(1, 2, 8, 8)], [torch.ones(1, 2, 8, 8)], module))
    return seen


def test_masks_leave_the_random_numbers_of_the_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, module = owned([(1, 2, 8, 8)])
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002, S311
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    masks_drawn(monkeypatch, module, 2)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002, S311


def test_masks_are_new_each_time_and_a_resumed_run_goes_on_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, module = owned([(1, 2, 8, 8)])
    first = masks_drawn(monkeypatch, module, 2)
    assert not torch.equal(first[0], first[1])
    state = module.state_dict()
    after = masks_drawn(monkeypatch, module, 1)
    _, resumed = owned([(1, 2, 8, 8)])
    resumed.load_state_dict(state, strict=True)
    assert torch.equal(masks_drawn(monkeypatch, resumed, 1)[0], after[0])
    _, again = owned([(1, 2, 8, 8)])
    assert torch.equal(masks_drawn(monkeypatch, again, 1)[0], first[0])
    assert not torch.equal(masks_drawn(monkeypatch, owned([(1, 2, 8, 8)])[1], 1, seed=1)[0], first[0])
    monkeypatch.setattr('kdplugin.distill.methods.mgd.get_rank', lambda: 1)
    assert not torch.equal(masks_drawn(monkeypatch, owned([(1, 2, 8, 8)])[1], 1)[0], first[0])


def test_padding_does_not_count() -> None:
    """Padding has no features here, so that the generator's border is the same; its target is garbage."""
    torch.manual_seed(0)
    method, module = owned([(2, 3, 4, 8)])
    student, teacher = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    labels = torch.zeros(2, 4, 8, dtype=torch.long)
    labels[..., 6:] = 255
    values = []
    for garbage in (0.0, 1e4):
        module.steps = 0
        target = torch.where(labels[:, None] == 255, garbage, teacher)
        values.append(method.distance(context([student], [target], module, labels=labels)))
    assert torch.equal(values[0], values[1])
    assert values[0] != method.distance(context([student], [teacher], module))


def test_settings_and_their_errors() -> None:
    for ratio in (-0.1, 1.0):
        with pytest.raises(
            ConfigError, match=r"Expected 0 <= mask_ratio < 1 in pair 'p' but got .* The paper has 0\.65"
        ):
            MGD('p', tap='x', mask_ratio=ratio)
    with pytest.raises(TapError, match=r'as many maps \(N, C, H, W\)'):
        owned([(1, 3)])


def test_training_a_detector(tmp_path: Path) -> None:
    model = learner(tmp_path, PAIR, dense('GFL'), dense('GFL', width=16, neck=24))
    assert len(adapters_of(model)['p'].levels) == 5
    gradients_of_the_pair_alone(model, batch_of(), 'neck.', own=True)
    it_trains(model, dense('GFL'), batch_of())
    distillation_of(model).pairs[0].method.mask_ratio = 0.0
    for law in LAWS:
        law(model, batch_of())


def test_training_a_segmentor_by_its_neck_of_four_levels(shared: Path) -> None:
    model = build(distilled(shared, dict(p=dict(PAIR, tap='backbone', mask_ratio=0.75)))).train()
    it_trains(model, segmentor(), segmentation_batch())
    assert adapters_of(model)['p'].steps == 2


def test_a_resumed_run_draws_the_masks_it_would_have_drawn(shared: Path, tmp_path: Path) -> None:
    """Bit for bit, with random augmentation and an EMA of the student."""

    def recipe(name: str) -> Any:
        model = distilled(shared, dict(p=dict(PAIR, tap='backbone', mask_ratio=0.75)))
        return run_config(shared, tmp_path / name, model, iters=4, ema=True)

    whole = start(recipe('whole'))
    start(recipe('cut'), stop=('before_train_iter', 2))
    again = start(recipe('cut'), resume='auto')
    assert again.steps == {step: losses for step, losses in whole.steps.items() if step >= 2}
    assert len(again.steps) == 2
    assert adapters_of(again.model)['p'].steps == 4
    assert hash_tensors(all_tensors(again.model)) == hash_tensors(all_tensors(whole.model))
