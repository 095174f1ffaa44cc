"""What must hold before a checkpoint is resumed, and before one is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner
from torch import Tensor

from kdplugin.errors import CheckpointError, NumericError
from kdplugin.hooks.model_of import is_sharded, weights_of

SHOWN = 3


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Demand that a checkpoint has a model's tensors and no others; mmengine itself would only warn.

    Args:
        own: the model's ``state_dict``.
        weights: the checkpoint's; counters of BatchNorm may be missing, as in files of old PyTorch versions.

    Raises:
        CheckpointError: names what does not fit.
    """
    wrong = [key for key in own.keys() ^ weights.keys() if not key.endswith('num_batches_tracked')]
    wrong += [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(
            f'Expected to resume this student but {len(wrong)} tensors do not fit, such as {sorted(wrong)[:SHOWN]}. '
            'Resume with the config that wrote the checkpoint, or use load_from to start anew.'
        )


def check_resumed_weights(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Run ``check_weights`` on a run that resumes; all ranks have to call it.

    Raises:
        CheckpointError: names what does not fit.
    """
    own = weights_of(runner)
    if own or not is_sharded(runner):
        check_weights(own, checkpoint.get('state_dict', {}))


def check_no_nan(checkpoint: Mapping[str, Any], last: str | None) -> None:
    """Keep a broken model off the disk, and with it from the place of a good one.

    Args:
        checkpoint: about to be written.
        last: the checkpoint before it.

    Raises:
        NumericError: a weight or running statistic is NaN.
    """
    weights = {**(checkpoint.get('ema_state_dict') or {}), **checkpoint.get('state_dict', {})}
    bad = sorted(key for key, value in weights.items() if value.is_floating_point() and value.isnan().any())
    if bad:
        done = (checkpoint.get('meta') or {}).get('iter')
        raise NumericError(
            f'Expected numbers to save after iteration {done} but {len(bad)} of {len(weights)} tensors hold NaN, such '
            f'as {bad[:SHOWN]}. Lower the learning rate or clip gradients, then go on with --resume: '
            f'{f"{last} is the last good checkpoint" if last else "there is no checkpoint yet"}.'
        )
