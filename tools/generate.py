#!/usr/bin/env python
"""Make pictures with a trained student: tools/generate.py STUDENT --prompt TEXT --encoder PIPELINE --out FOLDER"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdplugin.datasets.prompts import read_prompts
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.models.generators import WanLiteStudent
from kdplugin.models.generators.decode import decode, open_vae, preview, save_pictures
from kdplugin.models.generators.flow import flow_schedule, sample
from kdplugin.models.generators.text_encoder import EmbeddingCache, TextEncoder
from kdplugin.models.generators.wan_files import PARTS, load_scheduler, pipeline_folder
from kdplugin.reports.cli import run_tool


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Sample a WanLiteStudent and decode its latents with the VAE of Wan, or show a preview without.'
    )
    parser.add_argument('student', help='folder of save_pretrained, such as work_dirs/wan-lite_tiny/student')
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--prompt', help='one prompt')
    chosen.add_argument('--prompts', help="file with prompts, or 'held_out' for the embedded ones")
    parser.add_argument('--encoder', required=True, help='folder or id of the pipeline whose text encoder it knows')
    parser.add_argument('--cache', help='folder of prompts that are encoded already')
    parser.add_argument('--max-length', type=int, default=512, help='tokens of a prompt, as in training (default: 512)')
    parser.add_argument('--encoder-dtype', default='bfloat16', help='as in training (default: bfloat16)')
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--cfg', type=float, default=1.0, help='guidance; 1 (none) where the student learnt it')
    parser.add_argument('--seed', type=int, default=0, help='of the noise; picture k has seed + k')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'), help='in pixels')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--vae', help='folder of the VAE; a preview of the latents without')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs') / 'generated')
    return parser.parse_args(argv)


def prompts_of(arguments: argparse.Namespace) -> list[str]:
    if arguments.prompt is not None:
        return [arguments.prompt]
    return read_prompts(split='held_out') if arguments.prompts == 'held_out' else read_prompts(arguments.prompts, None)


def open_student(folder: str) -> Any:
    """Return a student from its folder.

    Raises:
        CheckpointError: there is none.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(
            f'Expected the folder of a student but {folder} is none. Train with kdplugin.SavePretrainedHook, which '
            'writes work_dirs/<config>/student.'
        )
    try:
        return WanLiteStudent.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f'Expected a WanLiteStudent in {folder} but got {type(error).__name__}: {str(error).splitlines()[0]}. Give '
            'the folder that kdplugin.SavePretrainedHook wrote.'
        ) from error


def noise_of(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return noise (N, C, H, W); picture k has that of seed + k, whatever the batch."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed + k)) for k in range(count)])


def encoded(root: Path, prompts: list[str], arguments: argparse.Namespace) -> Tensor:
    encoder = TextEncoder(root, max_length=arguments.max_length, dtype=arguments.encoder_dtype)
    folder = arguments.cache or arguments.out / 'encoded'
    return EmbeddingCache(folder, encoder, encoder.fingerprint, encoder.max_length)([*prompts, ''])


def generate(arguments: argparse.Namespace) -> list[Path]:
    """Write the pictures and what they were made with; return their paths."""
    prompts, student = prompts_of(arguments), open_student(arguments.student).to(arguments.device)
    if any(side % 16 for side in arguments.size) or min(arguments.size) < 16:
        raise ConfigError(
            f'Expected --size in multiples of 16 pixels but got {tuple(arguments.size)}. 512 512 is usual.'
        )
    root = pipeline_folder(arguments.encoder, PARTS)
    text = encoded(root, prompts, arguments).to(arguments.device, torch.float32)
    shape = (student.config.in_channels, arguments.size[0] // 8, arguments.size[1] // 8)
    noise = noise_of(len(prompts), shape, arguments.seed).to(arguments.device)
    schedule = flow_schedule(load_scheduler(root), arguments.steps)
    vae = None if arguments.vae is None else open_vae(arguments.vae).to(arguments.device)
    pictures = []
    for start in range(0, len(prompts), arguments.batch_size):
        part = slice(start, min(start + arguments.batch_size, len(prompts)))
        latents = sample(student, schedule, noise[part], text[part], empty_text=text[-1:], guidance=arguments.cfg)
        pictures.append((preview(latents) if vae is None else decode(vae, latents)).cpu())
    names = [f'{k:03d}' for k in range(len(prompts))]
    paths = save_pictures(torch.cat(pictures), names, arguments.out)
    made = dict(student=arguments.student, steps=arguments.steps, cfg=arguments.cfg, seed=arguments.seed,
                vae=arguments.vae, prompts=dict(zip(names, prompts, strict=True)))  # fmt: skip
    (arguments.out / 'made_with.json').write_text(json.dumps(made, indent=1) + '\n')
    return paths


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def body() -> int:
        paths = generate(arguments)
        kind = 'pictures' if arguments.vae else 'previews of latents (no --vae)'
        print(f'{len(paths)} {kind} in {arguments.out}.')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
