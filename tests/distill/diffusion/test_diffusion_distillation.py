"""A step: what the loss is, which numbers are drawn, the last batch, emptied prompts, and pairs of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from wan_fixtures import PROMPTS, distilled, pipeline

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation, Prompts
from kdplugin.distill.distiller import adapters_of, distillation_of
from kdplugin.distill.schedules import Moment
from kdplugin.errors import TapError
from kdplugin.models.generators.text_encoder import EmbeddingCache

__all__ = ['pipeline']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('diffusion')


def build(pipeline: Path, folder: Path, **more: Any) -> tuple[Any, DiffusionDistillation]:
    torch.manual_seed(0)
    model = MODELS.build(distilled(pipeline, folder, **more))
    distillation = cast(DiffusionDistillation, distillation_of(model))
    distillation.at(Moment(0, max_iters=4))
    distillation.attended = True
    return model.train(), distillation


def test_the_loss_is_the_squared_difference_of_velocities(pipeline: Path, folder: Path) -> None:
    model, distillation = build(pipeline, folder)
    torch.manual_seed(1)
    losses = model(prompt=PROMPTS[:3], mode='loss')
    torch.manual_seed(1)
    text, empty = distillation.prompts(PROMPTS[:3], torch.device('cpu'))
    question = distillation.flow.draw(distillation.wan, text, empty)
    asked = (question.latents, question.timesteps, text)
    target, tapped = distillation.wan.outputs(*asked, taps=['blocks.3'])
    found = model(*asked).sample
    torch.testing.assert_close(losses['loss_velocity'], (found - target).square().mean())
    assert set(losses) == {'loss_velocity', 'loss_kd_block', 'kd_block_raw', 'kd_block_weight', 'kd_task'}
    assert losses['kd_block_raw'] > 0
    assert tapped['blocks.3'][0].shape == (3, 16, 128)


def test_gradients_reach_the_student_and_the_adapter_alone(pipeline: Path, folder: Path) -> None:
    model, distillation = build(pipeline, folder)
    total, _ = model.parse_losses(model(prompt=PROMPTS[:2], mode='loss'))
    total.backward()
    assert all(value.grad is not None for value in model.parameters())
    assert [name for name, _ in adapters_of(model).named_parameters()] == ['block.0.weight', 'block.0.bias']
    assert adapters_of(model)['block'][0].weight.shape == (128, 64)  # type: ignore[index]
    assert all(value.grad is None for value in distillation.wan.module.parameters())


@pytest.mark.parametrize('count', [1, 2, 5])
def test_a_batch_of_any_size_is_a_mean_over_its_prompts(pipeline: Path, folder: Path, count: int) -> None:
    """The last batch of an epoch is smaller."""
    model, _ = build(pipeline, folder, pairs={})
    seen: list[torch.Size] = []
    model.patch_embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    losses = model(prompt=PROMPTS[:count], mode='loss')
    assert losses['loss_velocity'].isfinite()
    assert seen == [(count, 16, 8, 8)]


def test_images_are_used_where_there_are_any(pipeline: Path, folder: Path) -> None:
    model, distillation = build(pipeline, folder, pairs={})
    latents = [torch.randn(16, 4, 6) for _ in range(2)]
    asked: list[torch.Tensor] = []
    model.patch_embedding.register_forward_pre_hook(lambda module, args: asked.append(args[0]))
    torch.manual_seed(5)
    model(prompt=PROMPTS[:2], latents=latents, mode='loss')
    torch.manual_seed(5)
    index = torch.randint(8, (2,))
    noise = torch.randn(2, 16, 4, 6)
    sigma = distillation.flow.schedule.sigmas[index].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(asked[0], (1 - sigma) * torch.stack(latents) + sigma * noise)


def test_weights_of_zero_leave_the_pair_out(pipeline: Path, folder: Path) -> None:
    pairs = dict(
        block=dict(student_tap='blocks.1', teacher_tap='blocks.3', loss=dict(type='kdplugin.L2Loss'), weight=0.0)
    )
    model, _ = build(pipeline, folder, pairs=pairs)
    torch.manual_seed(1)
    losses = model(prompt=PROMPTS[:2], mode='loss')
    plain, _ = build(pipeline, folder, pairs={})
    torch.manual_seed(1)
    assert torch.equal(plain(prompt=PROMPTS[:2], mode='loss')['loss_velocity'], losses['loss_velocity'])
    assert not adapters_of(model)


def test_task_weight_weighs_the_velocity(pipeline: Path, folder: Path) -> None:
    found = []
    for weight in (1.0, 0.25):
        model, _ = build(pipeline, folder, pairs={}, task_weight=weight)
        torch.manual_seed(1)
        found.append(model(prompt=PROMPTS[:2], mode='loss')['loss_velocity'])
    torch.testing.assert_close(found[1], 0.25 * found[0])


def test_a_tap_that_names_nothing_or_never_runs_is_refused(pipeline: Path, folder: Path) -> None:
    pairs = dict(block=dict(student_tap='blocks.1', teacher_tap='patch_embedding', loss=dict(type='kdplugin.L2Loss')))
    with pytest.raises(TapError, match=r"pair 'block'"):
        build(pipeline, folder, pairs=pairs)


def cache(folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, lambda prompts: [torch.full((1, 2), float(len(p))) for p in prompts], 'x', 3)


def test_prompts_are_emptied_as_often_as_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text, empty = Prompts(cache(tmp_path), drop=0.25)(['four'] * 2000, torch.device('cpu'))
    assert empty.shape == (1, 3, 2)
    share = float((text[:, 0, 0] == 0).float().mean())
    assert 0.2 < share < 0.3
    state = torch.get_rng_state()
    kept, _ = Prompts(cache(tmp_path))(['four'] * 5, torch.device('cpu'))
    assert (kept[:, 0, 0] == 4).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_all_prompts_of_a_dataset_are_encoded_before_training(tmp_path: Path) -> None:
    class Data:
        prompts = ('a', 'bc')

    class Wrapper:
        dataset = Data()

    class Encoder:
        released = 0

        def release(self) -> None:
            self.released += 1

    encoder, kept = Encoder(), cache(tmp_path)
    Prompts(kept, encoder).prepare(Wrapper())  # type: ignore[arg-type]
    assert encoder.released == 1
    assert all(kept.path(prompt).is_file() for prompt in ('a', 'bc', ''))
    assert not isinstance(encoder, nn.Module)
