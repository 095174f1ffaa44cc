"""What a pair of models is: two real architectures, the hand-written truth between them, outputs to compare."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
Built = tuple[nn.Module, nn.Module, Any]

TABLES = re.compile(r'token|pos_?embed|position|class_embedding|bias_table|query_embed|embeddings?\.weight$')
"""Names of tensors of two and more axes that are looked up or added, not multiplied with."""


def randomise(module: nn.Module, seed: int) -> None:
    """Give every tensor of a module values of its own, so that no two of one shape can be exchanged unnoticed.

    Also norm gains, biases, running statistics, tokens, position tables and layer scales, which a constructor makes
    constant. Matrices keep the size of activations about constant.
    """
    generator = torch.Generator().manual_seed(seed)
    buffers = {name for name, _ in module.named_buffers()}
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                if name.endswith('num_batches_tracked'):
                    value.random_(1, 1_000_000, generator=generator)
            elif name.endswith('running_var'):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(('running_mean', 'bias')) or (value.ndim == 1 and name.endswith('_bias')):
                value.normal_(std=0.1, generator=generator)
            elif name in buffers and value.ndim > 1:
                continue
            elif value.ndim <= 1:
                value.uniform_(0.6, 1.2, generator=generator)
            elif TABLES.search(name):
                value.normal_(std=0.5, generator=generator)
            else:
                value.normal_(std=0.8 * math.sqrt(len(value) / value.numel()), generator=generator)


def call(module: nn.Module, inputs: Any) -> Any:
    """Run a module on a tensor, on a tuple of arguments or on a dict of named ones."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def tensors(value: Any) -> list[Tensor]:
    """Return the floating tensors in a nested output, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for part in value for tensor in tensors(part)]
    return []


def all_outputs(module: nn.Module, inputs: Any) -> Tensor:
    """Return every output of a module in one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors(call(module, inputs))])


def first_output(module: nn.Module, inputs: Any) -> Tensor:
    """Return a module's first output as a vector."""
    return tensors(call(module, inputs))[0].flatten()


@dataclass(frozen=True)
class Pair:
    """Two models that compute the same when the target's tensors are made from the source's as ``truth`` says.

    Args:
        name: what tables call it.
        build: makes (source, target, inputs) in eval mode; ``build(True)`` the same families at a tiny size.
        truth: the target's state dict from the source's; names that it leaves out have no true source.
        source_outputs, target_outputs: one vector from (module, inputs); equal when the weights are.
        refusable: pattern of targets whose permutation cannot be known: refused by name is right, too.
        refusable_bare: further ones when the source is a bare state dict, which does not show the order of patches.
        needs: packages without which ``build`` fails.
        by_values: the target holds the right values from the start, under its own names.
    """

    name: str
    build: Callable[[bool], Built]
    truth: Callable[[State], dict[str, Tensor]]
    source_outputs: Callable[[nn.Module, Any], Tensor] = all_outputs
    target_outputs: Callable[[nn.Module, Any], Tensor] = all_outputs
    refusable: str | None = None
    refusable_bare: str | None = None
    needs: tuple[str, ...] = ()
    by_values: bool = False

    def may_refuse(self, target: str, bare: bool = False) -> bool:
        """Tell whether a target tensor may be refused, with models or with a bare state dict."""
        patterns = (self.refusable, self.refusable_bare if bare else None)
        return any(pattern is not None and re.fullmatch(pattern, target) is not None for pattern in patterns)


class Case:
    """A pair, built: the models, the true state dict of the target, and the source's outputs.

    NaN in a true tensor stands for a value that is free, because the target never uses it.
    """

    def __init__(self, pair: Pair, tiny: bool = False, seed: int = 0) -> None:
        self.pair = pair
        torch.manual_seed(seed + 1)
        self.source, self.target, self.inputs = pair.build(tiny)
        randomise(self.source, seed)
        self.source.eval()
        self.target.eval()
        self.state = {name: value.detach() for name, value in self.source.state_dict().items()}
        self.truth = pair.truth(self.state)
        self.fresh = {name: value.clone() for name, value in self.target.state_dict().items()}
        self.own = {**self.fresh, **self.truth} if pair.by_values else self.fresh
        self.target.load_state_dict(self.own)
        self.before = self.fingerprint()
        with torch.no_grad():
            self.wanted = pair.source_outputs(self.source, self.inputs)

    def fingerprint(self) -> dict[str, float | bool]:
        """Return a number for each tensor of both models, and their modes: nobody who asks may change them."""
        models = {'source': self.source, 'target': self.target}
        sums = {
            f'{side} {name}': float(value.sum(dtype=torch.float64))
            for side, model in models.items()
            for name, value in model.state_dict().items()
        }
        return {**sums, **{f'{side} training': model.training for side, model in models.items()}}

    def difference(self, applied: State) -> float:
        """Return the largest output difference when the target holds these tensors, its first ones for the rest."""
        used = {name: value.nan_to_num() for name, value in applied.items()}
        self.target.load_state_dict({**self.fresh, **used}, strict=True)
        try:
            with torch.no_grad():
                outputs = self.pair.target_outputs(self.target, self.inputs)
        finally:
            self.target.load_state_dict(self.own)
        return float((outputs - self.wanted).abs().max())


Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def renamed(state: State, *rules: Rule) -> dict[str, Tensor]:
    """Rename tensors by every rule (pattern, replacement) in turn."""
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    if len(result) != len(state):
        raise ValueError('Expected names of their own after the rules but got some twice. Correct the rules.')
    return result


def split(state: State, pattern: str, parts: Sequence[str]) -> dict[str, Tensor]:
    """Cut tensors along axis 0 into as many equal parts as there are replacements for the pattern in their name."""
    result = {}
    for name, value in state.items():
        if re.search(pattern, name):
            for part, rows in zip(parts, value.chunk(len(parts)), strict=True):
                result[re.sub(pattern, part, name)] = rows
        else:
            result[name] = value
    return result


def fuse(state: State, pattern: str, whole: str) -> dict[str, Tensor]:
    """Join tensors along axis 0, in the order q, k, v, where the pattern's group 1 says which each is."""
    groups: dict[str, dict[str, Tensor]] = {}
    result = {}
    for name, value in state.items():
        match = re.search(pattern, name)
        if match:
            groups.setdefault(re.sub(pattern, whole, name), {})[match[1]] = value
        else:
            result[name] = value
    for name, parts in groups.items():
        result[name] = torch.cat([parts[part] for part in ('q', 'k', 'v')])
    return result
