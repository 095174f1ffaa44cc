"""Make a frozen teacher faster without changing what it says: precision, memory layout, folding, compilation."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.logging import print_log
from torch import Tensor, nn

from kdplugin.distill.first_step import first_step
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.early_stop import Steady, catch_until
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
TOLERANCE = 1e-5
"""What folding and layout may change, relative to the norm of a tap's output, when nobody asked for them."""
WRONG = 1e-2
"""A relative difference that no rounding explains."""


@dataclass(frozen=True)
class Speed:
    """How a teacher runs; None lets the teacher choose.

    Args:
        precision: 'float32', 'bfloat16' or 'float16' (autocast); None follows the student's autocast.
        channels_last: memory layout NHWC; by default on CPUs, and on other devices in half precision.
        fuse: fold BatchNorm into the convolution before it, in a copy; by default unless in half precision.
        compile: ``torch.compile`` the parts between the taps.
    """

    precision: str | None = None
    channels_last: bool | None = None
    fuse: bool | None = None
    compile: bool = False

    @property
    def half(self) -> bool:
        return self.precision in ('bfloat16', 'float16')

    @property
    def folds(self) -> bool:
        return not self.half if self.fuse is None else self.fuse

    def lays_out(self, device: torch.device) -> bool:
        """Tell whether tensors on a device are to lie channels-last."""
        return device.type == 'cpu' or self.half if self.channels_last is None else self.channels_last

    def slower(self) -> Iterator[Speed]:
        """Yield this and then, where nothing was asked for, what changes less and less of the teacher."""
        yield self
        less = self
        if less.fuse is None:
            less = replace(less, fuse=False)
            yield less
        if less.channels_last is None:
            yield replace(less, channels_last=False)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the teacher runs."""
        if self.precision is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, PRECISIONS[self.precision] if self.half else None, enabled=self.half)

    def effective(self, device: torch.device) -> str:
        """Return the precision in which the teacher would run now, the student's autocast included."""
        if self.precision is None and torch.is_autocast_enabled(device.type):
            return str(torch.get_autocast_dtype(device.type)).removeprefix('torch.')
        return self.precision or 'float32'

    def __str__(self) -> str:
        """Return for example 'bfloat16, channels_last, compiled'."""
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        parts = (self.precision or '', 'folded' * self.folds, 'channels_last' * self.lays_out(device))
        return ', '.join(filter(None, (*parts, 'compiled' * self.compile)))


SPEED_KEYS = tuple(field.name for field in fields(Speed))


def speed_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield what is wrong with the speed keys of a teacher config."""
    precision = config.get('precision')
    if precision is not None and precision not in PRECISIONS:
        yield ConfigError(
            f'Expected a precision of {list(PRECISIONS)} in teacher but got {precision!r}.'
            f'{did_you_mean(str(precision), PRECISIONS)} Choose one.'
        )
    for key in ('channels_last', 'fuse', 'compile'):
        if config.get(key) is not None and not isinstance(config[key], bool):
            yield ConfigError(f'Expected True or False as {key} in teacher but got {config[key]!r}. Choose one.')


def parse_speed(config: Mapping[str, Any]) -> Speed:
    """Read the speed keys of a teacher config whose ``speed_mistakes`` are none."""
    return Speed(**{key: config[key] for key in SPEED_KEYS if config.get(key) is not None})


def fastest(
    module: nn.Module, speed: Speed, taps: Sequence[str], steady: Steady | None, mode: str, owner: str
) -> tuple[Speed, FastParts]:
    """Return the first speed of ``speed.slower()`` that leaves the taps' outputs as they are, and what it takes.

    Args:
        module: the teacher, in eval mode.
        speed: what its config says.
        taps: its tapped modules.
        steady: what they put out; without it, only what was asked for is done.
        mode: of its forward.
        owner: how messages call it.

    Raises:
        ConfigError: what was asked for changes the outputs, or fails.
    """
    device = next(module.parameters()).device
    if steady is None:
        speed = replace(speed, fuse=bool(speed.fuse), channels_last=bool(speed.channels_last))
        return speed, FastParts(module, speed, taps)
    problems: list[str] = []
    for candidate in speed.slower():
        plain = not candidate.folds and not candidate.lays_out(device)
        problem = '' if plain else _trial(module, candidate, taps, steady, mode, owner)
        if not problem:
            if problems:
                print_log(f'The {owner} runs as [{candidate}], because {"; ".join(problems)}.', logger='current')
            return candidate, FastParts(module, candidate, taps)
        problems.append(f'[{candidate}] {problem}')
        lay_out(module, channels_last=False)
    raise ConfigError(
        f'Expected the {owner} to put out the same as before but {problems[-1]}. Leave out fuse and channels_last.'
    )


def _trial(module: nn.Module, speed: Speed, taps: Sequence[str], steady: Steady, mode: str, owner: str) -> str:
    """Run a batch in float32 and return what is wrong with its outputs, empty if nothing is."""
    last = speed.lays_out(steady.inputs.device)
    guessed = (speed.folds and speed.fuse is None) or (last and speed.channels_last is None)
    limit = TOLERANCE if guessed else WRONG
    inputs = steady.inputs.contiguous(memory_format=torch.channels_last) if last else steady.inputs
    try:
        fast = FastParts(module, replace(speed, compile=False), taps)
        with fast.in_place() as model, preserved_rng(), first_step(), torch.no_grad():
            lay_out(model, last)
            catching = catch(model, taps, owner) if steady.calls is None else catch_until(model, steady.calls, owner)
            with torch.autocast(inputs.device.type, enabled=False), catching as caught:
                model(inputs, steady.samples, mode=mode)
        difference = relative_difference(caught.tensors, steady.tensors)
    except Exception as error:
        return f'fails with {type(error).__name__}: {error}'
    return '' if difference <= limit else f'changes outputs by {difference:.1e} of their norm'


def lay_out(module: nn.Module, channels_last: bool) -> nn.Module:
    """Lay the weights of a module out for convolutions, channels last or first; no value changes."""
    layout: Any = dict(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return module.to(**layout)


class FastParts:
    """What takes the place of a teacher's parts while it runs; outside of that the teacher is as it was loaded.

    Args:
        module: the teacher, in eval mode.
        speed: what to do.
        taps: paths whose modules must run as modules, so that they can be tapped.
    """

    def __init__(self, module: nn.Module, speed: Speed, taps: Iterable[str]) -> None:
        self.module = module
        self.folded = list(folded_parts(module)) if speed.folds else []
        self._gone: dict[str, Tensor] = {}
        self.compiled: list[tuple[nn.Module, Any]] = []
        if speed.compile:
            with self.in_place():
                self.compiled = [(part, torch.compile(part.forward)) for part in untapped(module, taps)]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[nn.Module]:
        """Give the teacher with its fast parts for the block."""
        slow = [(owner, name, owner._modules[name]) for owner, name, _ in self.folded]
        try:
            for owner, name, part in self.folded:
                owner._modules[name] = part
            for part, forward in self.compiled:
                part.forward = forward
            yield self.module
        finally:
            for owner, name, was in slow:
                owner._modules[name] = was
            for part, _ in self.compiled:
                part.__dict__.pop('forward', None)

    def let_go(self) -> None:
        """Free the weights of the convolutions that folded ones stand for, until ``take_back``."""
        with self.in_place():
            used = {id(parameter) for parameter in self.module.parameters()}
        for name, parameter in self.module.named_parameters():
            if id(parameter) not in used and parameter.dim() > 1:
                self._gone[name] = parameter
                parameter.data = parameter.data.new_empty(0)

    def take_back(self, read: Callable[[], Mapping[str, Tensor]]) -> None:
        """Give the module all of its weights again.

        Args:
            read: returns them by name; called only where some were let go.
        """
        weights = read() if self._gone else {}
        for name, parameter in self._gone.items():
            parameter.data = weights[name].to(parameter)
        self._gone.clear()


def folded_parts(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield, with their owner and name, convolutions that hold the BatchNorm after them, and what is left of that.

    Made by mmcv's ``fuse_conv_bn`` from a copy that shares all other tensors.
    """
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    with torch.no_grad():
        fused = fuse_conv_bn(copy.deepcopy(module, tensors)).requires_grad_(False)
    after = dict(fused.named_modules(remove_duplicate=False))
    for path, part in module.named_modules(remove_duplicate=False):
        owner, _, name = path.rpartition('.')
        fast = after[path]
        if type(fast) is not type(part) or getattr(fast, 'weight', None) is not getattr(part, 'weight', None):
            yield module.get_submodule(owner), name, fast


def untapped(module: nn.Module, taps: Iterable[str]) -> Iterator[nn.Module]:
    """Yield the largest modules with no tap inside; tapped modules run whole, their hooks lie outside."""
    inside: dict[str, list[str]] = {}
    for tap in taps:
        head, _, rest = tap.partition('.')
        inside.setdefault(head, []).append(rest)
    for name, child in module.named_children():
        deeper = [rest for rest in inside.get(name, []) if rest]
        if deeper or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from untapped(child, deeper)
        else:
            yield child


def relative_difference(ours: Mapping[str, Sequence[Tensor]], theirs: Mapping[str, Sequence[Tensor]]) -> float:
    """Return the largest norm of a difference, relative to the norm of the right-hand tensor."""
    pairs = ((one.double(), two.double()) for tap in theirs for one, two in zip(ours[tap], theirs[tap], strict=True))
    ratios = [float((one - two).norm() / two.norm().clamp_min(1e-12)) for one, two in pairs if two.numel()]
    return max(ratios, key=lambda ratio: float('inf') if ratio != ratio else ratio, default=0.0)
