"""A whole Wan pipeline small enough for a laptop: two experts, scheduler, UMT5, tokenizer, and a VAE on request.

The experts know one thing: a prompt's picture is a soft disc on a slope, placed and coloured by the prompt. Text,
timestep and noise all matter to their velocity, so that a student has something to learn. The same seed gives the same
files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.models.generators.flow import add_noise, flow_schedule
from kdplugin.models.generators.text_encoder import TextEncoder
from kdplugin.models.generators.wan_files import BOUNDARY, load_scheduler
from kdplugin.weights.reading.io import write_text

FORMAT = 1
"""Raise when the same arguments would give other files."""
WIDTHS = dict(num_attention_heads=4, attention_head_dim=32, ffn_dim=256, num_layers=4)
"""Wider than the 64 numbers of a patch: narrower models cannot even pass on the noise they see."""
CHANNELS, TEXT, FREQUENCIES, TOKENS = 16, 32, 32, 24
SIDE = 8
"""Latent pixels on each side of its pictures."""


def toy_latents(prompts: Sequence[str], side: int = SIDE) -> Tensor:
    """Return the normalised latents (N, 16, side, side) of the pictures that prompts stand for.

    Centre, size, slope and colours come from the prompt's sha256.
    """
    axis = torch.linspace(-1, 1, side)
    rows, columns = torch.meshgrid(axis, axis, indexing='ij')
    pictures = []
    for prompt in prompts:
        digest = hashlib.sha256(prompt.encode()).digest()
        values = torch.tensor(list(digest), dtype=torch.float32) / 127.5 - 1
        y, x, size, slope = values[0] * 0.5, values[1] * 0.5, 0.45 + 0.15 * values[2], values[3] * 3.1416
        disc = torch.sigmoid(12 * (size - ((rows - y) ** 2 + (columns - x) ** 2).sqrt()))
        ground = rows * torch.cos(slope) + columns * torch.sin(slope)
        colours, shades = values[4:20, None, None], values[15:31, None, None]
        pictures.append(1.5 * colours * disc + shades * ground * (1 - disc))
    return torch.stack(pictures)


def make_tiny_pipeline(
    folder: str | Path, *, prompts: Sequence[str], steps: int = 200, seed: int = 0, vae: bool = False
) -> Path:
    """Write a tiny pipeline, or leave it where the same one is there already; return its folder.

    Args:
        folder: in the layout of diffusers.
        prompts: that its experts are trained on.
        steps: of training for each expert; 0 leaves them random.
        seed: of all weights.
        vae: write a random VAE too.

    Example:
        >>> make_tiny_pipeline('work_dirs/wan_tiny', prompts=read_prompts())  # doctest: +SKIP
    """
    folder = Path(folder)
    about = json.dumps(dict(format=FORMAT, prompts=list(prompts), steps=steps, seed=seed, vae=vae, **WIDTHS))
    stamp = folder / 'made_with.json'
    if stamp.is_file() and stamp.read_text() == about:
        return folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_scheduler(folder)
        _write_text_parts(folder)
        text = _encoded(folder, prompts)
        for name, part in (('transformer', 'high'), ('transformer_2', 'low')):
            model = _expert()
            _train(model, toy_latents(prompts), text, load_scheduler(folder), part, steps)
            model.save_pretrained(folder / name)
        if vae:
            tiny_vae().save_pretrained(folder / 'vae')
    index = dict(_class_name='WanPipeline', boundary_ratio=BOUNDARY)
    write_text(folder / 'model_index.json', json.dumps(index, indent=2) + '\n')
    write_text(stamp, about)
    return folder


def _expert() -> Any:
    from diffusers import WanTransformer3DModel

    model: Any = WanTransformer3DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, text_dim=TEXT, freq_dim=FREQUENCIES, **WIDTHS
    )
    return model.train()


def _train(model: nn.Module, images: Tensor, text: Tensor, scheduler: Any, part: str, steps: int) -> None:
    """Teach an expert the pictures by flow matching, at its own noise levels."""
    schedule = flow_schedule(scheduler, 100)
    high = schedule.timesteps >= BOUNDARY * scheduler.config.num_train_timesteps
    own = (high if part == 'high' else ~high).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, max(steps, 1))
    for _ in range(steps):
        chosen = torch.randint(len(images), (16,))
        level = own[torch.randint(len(own), (16,))]
        noise = torch.randn(16, *images.shape[1:])
        noisy = add_noise(images[chosen], noise, schedule.sigmas[level])
        found = model(noisy[:, :, None], schedule.timesteps[level], text[chosen], return_dict=False)[0][:, :, 0]
        loss = F.mse_loss(found, noise - images[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()


def _write_scheduler(folder: Path) -> None:
    from diffusers import UniPCMultistepScheduler

    scheduler: Any = UniPCMultistepScheduler(
        prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    scheduler.save_pretrained(folder / 'scheduler')


def _write_text_parts(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(['<pad>', '</s>', '<unk>', *letters])}
    names = {f'{role}_token': token for role, token in zip(('pad', 'eos', 'unk'), vocabulary, strict=False)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=names['unk_token']))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / 'tokenizer')
    config = UMT5Config(
        vocab_size=len(vocabulary), d_model=TEXT, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0, feed_forward_proj='gated-gelu', dropout_rate=0.0,
    )  # fmt: skip
    UMT5EncoderModel(config).eval().save_pretrained(folder / 'text_encoder')


def _encoded(folder: Path, prompts: Sequence[str]) -> Tensor:
    encoder = TextEncoder(folder, max_length=TOKENS, dtype='float32')
    return torch.stack([F.pad(tokens, (0, 0, 0, TOKENS - len(tokens))) for tokens in encoder(prompts)])


def tiny_vae() -> Any:
    """Return a random VAE with Wan's shape: 16 channels, 8 pixels on each side of a latent one."""
    from diffusers import AutoencoderKLWan

    vae: Any = AutoencoderKLWan(base_dim=4, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return vae.eval()
