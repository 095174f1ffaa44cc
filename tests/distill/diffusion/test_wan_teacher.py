"""The frozen video transformer: one frame, the expert of the timestep, guidance, taps, and nothing that moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from wan_fixtures import expert_of, pipeline

from kdplugin.distill.diffusion.wan_teacher import WanTeacher, fingerprint, wan_teacher_mistakes
from kdplugin.errors import CheckpointError, PathError
from kdplugin.weights.reading.io import hash_tensors

__all__ = ['pipeline']
TIMES = torch.tensor([900.0, 100.0, 875.0, 874.9])


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 16, 4, 6, generator=generator), torch.randn(count, 5, 32, generator=generator)


def diffusers_answers(pipeline: Path, part: str, latents: torch.Tensor, times: torch.Tensor, text: torch.Tensor) -> Any:
    model = expert_of(pipeline / part)
    with torch.no_grad():
        return model(latents[:, :, None], times, text).sample[:, :, 0]


def test_each_image_is_answered_by_the_expert_of_its_timestep(pipeline: Path) -> None:
    latents, text = batch()
    velocity, tapped = WanTeacher(pipeline, 'float32').outputs(latents, TIMES, text)
    assert tapped == {}
    for part, index in (('transformer', [0, 2]), ('transformer_2', [1, 3])):
        expected = diffusers_answers(pipeline, part, latents[index], TIMES[index], text[index])
        torch.testing.assert_close(velocity[index], expected)
        others = diffusers_answers(pipeline, part, latents, TIMES, text)
        assert not torch.allclose(velocity[[i for i in range(4) if i not in index]],
                                  others[[i for i in range(4) if i not in index]], atol=1e-3)  # fmt: skip


def test_taps_come_in_the_order_of_the_batch(pipeline: Path) -> None:
    latents, text = batch()
    teacher = WanTeacher(pipeline, 'float32')
    _, tapped = teacher.outputs(latents, TIMES, text, taps=['blocks.1', 'proj_out'])
    for row in range(4):
        part = slice(row, row + 1)
        _, alone = teacher.outputs(latents[part], TIMES[part], text[part], taps=['blocks.1', 'proj_out'])
        for tap in ('blocks.1', 'proj_out'):
            torch.testing.assert_close(tapped[tap][0][part], alone[tap][0], rtol=1e-4, atol=1e-5)
    assert tapped['blocks.1'][0].shape == (4, 6, 128)


def test_guidance_is_by_expert_and_the_taps_see_the_prompt(pipeline: Path) -> None:
    latents, text = batch()
    empty = torch.zeros(1, 5, 32)
    plain = WanTeacher(pipeline, 'float32')
    both = WanTeacher(pipeline, 'float32', guidance=dict(high=4.0, low=1.0))
    assert not plain.guided
    assert both.guided
    with_prompt, tapped = plain.outputs(latents, TIMES, text, taps=['blocks.0'])
    without, _ = plain.outputs(latents, TIMES, empty.expand(4, -1, -1))
    found, their = both.outputs(latents, TIMES, text, empty, taps=['blocks.0'])
    torch.testing.assert_close(found[[0, 2]], (without + 4 * (with_prompt - without))[[0, 2]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[[1, 3]], with_prompt[[1, 3]])
    assert torch.equal(tapped['blocks.0'][0], their['blocks.0'][0])


@pytest.mark.parametrize('offload', ['none', 'cpu'])
def test_it_is_frozen_and_the_same_after_it_was_asked(pipeline: Path, offload: str) -> None:
    teacher = WanTeacher(pipeline, 'float32', offload=offload)
    before = hash_tensors(teacher.module.state_dict())
    latents, text = batch()
    velocity, _ = teacher.outputs(latents.requires_grad_(), TIMES, text)
    assert not velocity.requires_grad
    assert hash_tensors(teacher.module.state_dict()) == before
    assert not any(value.requires_grad for value in teacher.module.parameters())
    assert not any(module.training for expert in teacher.module.values() for module in expert.modules())


def test_autocast_does_not_reach_it(pipeline: Path) -> None:
    latents, text = batch()
    teacher = WanTeacher(pipeline, 'float32')
    with torch.autocast('cpu', torch.bfloat16):
        found, _ = teacher.outputs(latents, TIMES, text)
    assert torch.equal(found, teacher.outputs(latents, TIMES, text)[0])


def test_bfloat16_answers_nearly_alike_in_single_precision(pipeline: Path) -> None:
    latents, text = batch()
    exact, near = (WanTeacher(pipeline, kind).outputs(latents, TIMES, text)[0] for kind in ('float32', 'bfloat16'))
    assert near.dtype == torch.float32
    assert 0 < (near - exact).norm() < 0.05 * exact.norm()


def test_a_single_expert_speaks_at_every_timestep(pipeline: Path, tmp_path: Path) -> None:
    for part in ('transformer', 'scheduler'):
        shutil.copytree(pipeline / part, tmp_path / part)
    teacher = WanTeacher(tmp_path, 'float32')
    assert teacher.boundary == 0
    assert [(name, index.tolist()) for name, index in teacher.choose(TIMES)] == [('high', [0, 1, 2, 3])]
    assert '1 expert(s) in float32' in teacher.how


def test_it_says_what_it_is(pipeline: Path) -> None:
    teacher = WanTeacher(pipeline, 'bfloat16', offload='cpu', guidance=2)
    assert teacher.how == (
        '2 expert(s) in bfloat16, one frame, the high-noise one from timestep 875, offloaded to the CPU, '
        "guidance {'high': 2.0, 'low': 2.0}"
    )
    assert teacher.parameters == sum(value.numel() for value in teacher.module.parameters())
    assert teacher.tensors == len(teacher.module.state_dict())


def test_the_fingerprint_changes_with_the_weights(pipeline: Path, tmp_path: Path) -> None:
    files = sorted((pipeline / 'transformer').iterdir())
    assert fingerprint(files) == fingerprint(files) != fingerprint(sorted((pipeline / 'transformer_2').iterdir()))


def test_what_does_not_fit_is_refused_when_it_is_built(pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / 'copy')
    config = tmp_path / 'copy' / 'transformer_2' / 'config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'num_layers': 5}))
    with pytest.raises(CheckpointError, match=r'transformer_2 but \d+ do not fit, such as blocks\.4\..*: missing'):
        WanTeacher(tmp_path / 'copy')
    with pytest.raises(PathError, match=r'block'):
        WanTeacher(pipeline, 'float32').outputs(*batch()[:1], TIMES, batch()[1], taps=['block.1'])


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(), r'Expected a path in teacher but got none'),
        (dict(path='x', ofload='cpu'), r"got 'ofload'\. Did you mean 'offload'\?"),
        (dict(path='x', dtype='int8'), r"Expected dtype of \[.*\] in teacher but got 'int8'"),
        (dict(path='x', offload='disk'), r"Expected offload of \['none', 'cpu'\] in teacher but got 'disk'"),
        (dict(path='x', guidance=0), r'Expected guidance in teacher to be a number above 0.* but got 0'),
        (dict(path='x', guidance=dict(high=4.0)), r"but got \{'high': 4.0\}"),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    (mistake,) = wan_teacher_mistakes(config)
    with pytest.raises(type(mistake), match=message):
        raise mistake


def test_a_right_config_has_no_mistakes() -> None:
    assert not list(wan_teacher_mistakes(dict(path='x', dtype='float16', guidance=dict(high=4, low=3.0))))
