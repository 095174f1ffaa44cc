"""The student: the teacher's function at the teacher's size, refusals, save_pretrained and from_pretrained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from wan_fixtures import asked, same_size_student, video_model

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.errors import ConfigError, DataError
from kdplugin.models.generators import WanLiteStudent
from kdplugin.weights.layouts.wan import to_native
from kdplugin.weights.project import load_into, project


@pytest.mark.parametrize('names', ['diffusers', 'native'])
@pytest.mark.parametrize('size', [(8, 12), (4, 4)])
def test_projected_at_the_teachers_size_it_is_the_teacher(names: str, size: tuple[int, int]) -> None:
    """The law of the mapping, of Conv3d to Conv2d and of the position code."""
    teacher, student = video_model(), same_size_student()
    source = teacher.state_dict()
    if names == 'native':
        source = {to_native(name): value for name, value in source.items()}
    projection = project(source, student, min_coverage=1.0)
    assert projection.report.coverage == {'tensors': 1.0, 'parameters': 1.0}
    latents, timesteps, text = asked(size=size)
    with torch.no_grad():
        expected = teacher(latents[:, :, None], timesteps, text).sample[:, :, 0]
        assert (student(latents, timesteps, text).sample - expected).abs().max() > 0.1
        load_into(student, projection.tensors)
        found = student(latents, timesteps, text).sample
    assert expected.abs().mean() > 0.1
    assert (found - expected).abs().max() < 1e-4


def test_a_narrower_and_shallower_one_is_covered_whole() -> None:
    student = same_size_student(hidden_size=12, depth=2, num_heads=2, ffn_size=16, rope_head_dim=12)
    report = project(video_model().state_dict(), student, min_coverage=1.0, heads=dict(source=2, target=2)).report
    assert report.coverage['parameters'] == 1.0
    sources = {entry.target: entry.sources for entry in report.plan.entries}
    assert sources['blocks.1.attn2.to_k.weight'] == ('blocks.2.attn2.to_k.weight',)
    assert sources['patch_embedding.weight'] == ('patch_embedding.weight',)
    assert {name for name, (source,) in sources.items() if 'blocks' not in name and name != source} == set()


def test_everything_that_touches_the_stream_keeps_the_same_units() -> None:
    """The timestep's embedding is added to a table of the stream, so that it shares its units too."""
    student = same_size_student(hidden_size=12, depth=2, num_heads=2, ffn_size=16, rope_head_dim=12)
    plan = project(video_model().state_dict(), student, heads=dict(source=2, target=2)).report.plan
    written = ['patch_embedding.weight', 'blocks.0.attn1.to_out.0.weight', 'blocks.0.attn2.to_out.0.bias',
               'blocks.1.ffn.net.2.weight', 'condition_embedder.time_embedder.linear_2.bias', 'scale_shift_table',
               'blocks.0.scale_shift_table', 'condition_embedder.time_proj.bias', 'blocks.1.norm2.weight']  # fmt: skip
    groups = {
        name: {step.args['group'] for step in plan[name].pieces[0].steps if step.op == 'project'} for name in written
    }
    shared = set.intersection(*groups.values())
    assert len(shared) == 1, groups
    for name in ('blocks.0.attn1.to_q.weight', 'proj_out.weight', 'blocks.1.ffn.net.0.proj.weight'):
        assert shared <= {step.args['group'] for step in plan[name].pieces[0].steps if step.op == 'project'}


def test_timestep_and_text_matter_and_images_do_not_see_each_other() -> None:
    student = same_size_student()
    latents, timesteps, text = asked()
    with torch.no_grad():
        whole = student(latents, timesteps, text).sample
        torch.testing.assert_close(
            student(latents[:1], timesteps[:1], text[:1]).sample, whole[:1], rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(student(latents, timesteps.flip(0), text).sample, whole, atol=1e-3)
        assert not torch.allclose(student(latents, timesteps, text.flip(0)).sample, whole, atol=1e-3)


def test_a_mask_of_all_tokens_is_no_mask() -> None:
    student = same_size_student()
    latents, timesteps, text = asked()
    with torch.no_grad():
        plain = student(latents, timesteps, text).sample
        all_of_it = student(latents, timesteps, text, torch.ones(2, 5)).sample
        first = student(latents, timesteps, text, torch.tensor([[1, 1, 0, 0, 0]] * 2)).sample
        alone = student(latents, timesteps, text[:, :2]).sample
    torch.testing.assert_close(all_of_it, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, plain, atol=1e-3)


def test_checkpointing_gives_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        student = same_size_student().train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        student(*asked()).sample.square().mean().backward()
        gradients.append({name: value.grad for name, value in student.named_parameters()})
    assert all(value is not None for value in gradients[0].values())
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_it_runs_in_half_precision_and_under_autocast(dtype: torch.dtype) -> None:
    student = same_size_student()
    latents, timesteps, text = asked()
    with torch.no_grad():
        expected = student(latents, timesteps, text).sample
        with torch.autocast('cpu', dtype):
            near = student(latents, timesteps, text).sample
        low = student.to(dtype)(latents.to(dtype), timesteps, text.to(dtype)).sample
    assert low.dtype == dtype
    for found in (near, low):
        assert (found.float() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        (dict(hidden_size=25), r'Expected an even hidden_size .* but got hidden_size=25'),
        (dict(depth=0), r'at least one block and head but got hidden_size=1024, depth=0'),
        (dict(hidden_size=1024, num_heads=15), r'Expected num_heads that divide hidden_size=1024 .* but got 15\. '
         r'Choose for example 16\.'),
        (dict(hidden_size=24, num_heads=8), r'heads of an even width but got 8'),
        (dict(hidden_size=24, num_heads=2, rope_head_dim=8), r'at least that of ours, 12, but got 8'),
    ],
)  # fmt: skip
def test_sizes_that_do_not_go_together_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WanLiteStudent(**sizes)


@pytest.mark.parametrize('shape', [(1, 4, 7, 8), (1, 4, 8, 9), (1, 4, 1, 8, 8)])
def test_latents_that_are_no_patches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r'H and W divisible by 2 but got \(1, 4, '):
        same_size_student()(torch.zeros(shape), torch.zeros(1), torch.zeros(1, 1, 10))


def test_the_real_one_has_so_many_parameters() -> None:
    with torch.device('meta'):
        student = MODELS.build(dict(type='kdplugin.WanLiteStudent', rope_head_dim=128))
    assert sum(value.numel() for value in student.parameters()) == 281_834_560
    assert len(student.state_dict()) == 447


def test_it_loads_where_nothing_of_the_training_is_imported(tmp_path: Path) -> None:
    student = same_size_student()
    student.save_pretrained(tmp_path / 'student')
    torch.save([*asked(), student(*asked()).sample.detach()], tmp_path / 'expected.pt')
    code = (
        'import sys, torch\n'
        "sys.modules.update(dict.fromkeys(['mmdet', 'mmseg', 'mmcv', 'timm']))\n"  # as if none were installed
        'from kdplugin.models.generators.wan_lite import WanLiteStudent\n'
        f'latents, timesteps, text, expected = torch.load({str(tmp_path / "expected.pt")!r})\n'
        f'student = WanLiteStudent.from_pretrained({str(tmp_path / "student")!r})\n'
        'torch.testing.assert_close(student(latents, timesteps, text).sample, expected)\n'
        "training = ('kdplugin.distill', 'kdplugin.hooks', 'kdplugin.launch', 'kdplugin.reports')\n"
        'print(sorted(name for name in sys.modules if name.startswith(training)))\n'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == '[]'


def test_a_file_of_sizes_is_enough(tmp_path: Path) -> None:
    sizes = dict(hidden_size=24, depth=2, num_heads=2, text_dim=10)
    file = tmp_path / 'student_config.json'
    file.write_text(json.dumps(sizes))
    student = WanLiteStudent.from_config(WanLiteStudent.load_config(str(file)))
    assert len(student.blocks) == 2
    assert {key: student.config[key] for key in sizes} == sizes
