"""The benchmarks of faults: what they compare, what they count; and, marked slow, short forms of themselves."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import crash_test  # noqa: E402
import two_nodes  # noqa: E402
from crash_test import PARTS, fingerprint, summary  # noqa: E402


def checkpoint() -> dict[str, Any]:
    content: dict[str, Any] = {part: {'a': torch.arange(4.0), 'b': [1, (2.5, 'c')]} for part in PARTS}
    return {**content, 'meta': {'time': 1}, 'message_hub': {'log_scalars': {}}}


@pytest.mark.parametrize('part', PARTS)
def test_a_single_bit_of_any_part_changes_the_fingerprint(part: str) -> None:
    one, other = checkpoint(), copy.deepcopy(checkpoint())
    assert fingerprint(one) == fingerprint(other)
    other[part]['a'].view(torch.int32)[2] ^= 1
    assert fingerprint(one) != fingerprint(other)
    one[part]['b'] = [1, (2.5, 'd')]
    assert fingerprint(one) != fingerprint(checkpoint())


def test_times_do_not_change_it() -> None:
    assert fingerprint({**checkpoint(), 'meta': {'time': 2}}) == fingerprint(checkpoint())


def test_the_summary_counts() -> None:
    trials = [
        dict(killed_in='saving', half_written_files=1, resumed=True, equal=True),
        dict(killed_in='training', half_written_files=0, resumed=True, equal=False),
        dict(killed_in='saving', half_written_files=0, resumed=False, equal=False),
    ]
    counts = summary(trials, {'truncations': 4, 'flipped_bits': 5}, 5, 0)
    assert (counts['kills'], counts['resumed'], counts['equal_bit_for_bit']) == (3, 2, 1)
    assert counts['killed_in'] == {'saving': 2, 'training': 1}
    assert counts['with_a_half_written_file'] == 1
    assert (counts['truncations_found_out'], counts['flipped_bits_found_out']) == (4, 5)


def test_a_curve_is_the_mean_over_processes_and_of_a_repeated_iteration_the_last(tmp_path: Path) -> None:
    lines = [[(0, 1.0), (1, 9.0), (1, 2.0)], [(0, 3.0), (1, 4.0), (2, 5.0)]]
    for rank, steps in enumerate(lines):
        text = '\n'.join(json.dumps({'iteration': step, 'loss': loss}) for step, loss in steps)
        (tmp_path / f'rank{rank}.jsonl').write_text(text)
    assert two_nodes.curve(tmp_path) == {0: {'loss': 2.0}, 1: {'loss': 3.0}}


@pytest.mark.slow
def test_killed_runs_end_as_one_that_was_not(tmp_path: Path) -> None:
    results = crash_test.measure(kills=3, damages=5, seed=7, work=tmp_path)
    assert results['equal_bit_for_bit'] == results['resumed'] == 3
    assert results['truncations_found_out'] == results['flipped_bits_found_out'] == 5


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which('ip') is None, reason='needs root and iproute2')
def test_two_machines_are_one(tmp_path: Path) -> None:
    results = two_nodes.measure(tmp_path)
    assert results['compared_iterations'] == 20, results['said']
    assert results['largest_difference'] < 1e-4
    assert results['exit_codes_after_resume'] == [0, 0]
    assert all(code != 0 for code in results['exit_codes_after_the_kill'])
    assert results['seconds_until_all_ended'] < 60
