"""Pictures of a saved student: one PNG for each prompt, the same for the same seed, decoded where there is a VAE."""

from __future__ import annotations

import json
from pathlib import Path

import generate as tool
import pytest
import torch
from PIL import Image
from wan_fixtures import TOKENS, pipeline

from kdplugin.models.generators import WanLiteStudent
from kdplugin.models.generators.tiny_pipeline import tiny_vae

__all__ = ['pipeline']


@pytest.fixture(scope='module')
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('student')
    WanLiteStudent(24, 2, 2, 48, text_dim=32, freq_dim=32).save_pretrained(folder)
    return str(folder)


def options(pipeline: Path, student: str, out: Path, *more: str) -> list[str]:
    return [
        student, '--encoder', str(pipeline), '--max-length', str(TOKENS), '--encoder-dtype', 'float32', '--size', '32',
        '48', '--steps', '2', '--device', 'cpu', '--out', str(out), *more,
    ]  # fmt: skip


def pixels(file: Path) -> bytes:
    return Image.open(file).tobytes()


def test_each_prompt_gets_its_picture_whatever_the_batch(pipeline: Path, student: str, tmp_path: Path) -> None:
    file = tmp_path / 'prompts.txt'
    file.write_text('a red door\na blue lamp\na green bird\n')
    for batch in ('1', '2'):
        out = tmp_path / batch
        assert tool.main(options(pipeline, student, out, '--prompts', str(file), '--batch-size', batch)) == 0
        assert sorted(path.name for path in out.glob('*.png')) == ['000.png', '001.png', '002.png']
        assert Image.open(out / '000.png').size == (48, 32)
    assert pixels(tmp_path / '1' / '002.png') == pixels(tmp_path / '2' / '002.png')
    made = json.loads((tmp_path / '1' / 'made_with.json').read_text())
    assert made['prompts'] == {'000': 'a red door', '001': 'a blue lamp', '002': 'a green bird'}


def test_seed_and_guidance_change_the_picture(pipeline: Path, student: str, tmp_path: Path) -> None:
    found = []
    for name, more in (('a', []), ('b', []), ('c', ['--seed', '1']), ('d', ['--cfg', '4'])):
        tool.main(options(pipeline, student, tmp_path / name, '--prompt', 'a lamp', *more))
        found.append(pixels(tmp_path / name / '000.png'))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_with_a_vae_latents_are_decoded(
    pipeline: Path, student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    tiny_vae().save_pretrained(tmp_path / 'vae')
    arguments = ['--prompt', 'a lamp', '--vae', str(tmp_path / 'vae')]
    assert tool.main(options(pipeline, student, tmp_path / 'a', *arguments)) == 0
    assert '1 pictures in' in capsys.readouterr().out
    tool.main(options(pipeline, student, tmp_path / 'b', '--prompt', 'a lamp'))
    assert '1 previews of latents (no --vae) in' in capsys.readouterr().out
    assert Image.open(tmp_path / 'a' / '000.png').size == (48, 32)
    assert pixels(tmp_path / 'a' / '000.png') != pixels(tmp_path / 'b' / '000.png')


def test_mistakes_are_one_line(
    pipeline: Path, student: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (options(pipeline, 'nowhere', tmp_path, '--prompt', 'a'),
         'error: Expected the folder of a student but nowhere is none'),
        (options(pipeline, str(pipeline), tmp_path, '--prompt', 'a'), 'error: Expected a WanLiteStudent in'),
        (options(pipeline, student, tmp_path, '--prompt', 'a', '--size', '30', '48'),
         'error: Expected --size in multiples of 16 pixels but got (30, 48)'),
    ):  # fmt: skip
        assert tool.main(arguments) == 1
        assert capsys.readouterr().err.startswith(message)
