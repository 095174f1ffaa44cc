"""Make attention_map.json: MiniLM's attention transfer in float64 from scipy, without torch and without kdplugin.

Scores are multiples of 1/8. N image, A head, L token; the student's heads are the teacher's 2 and 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import rel_entr, softmax

HEADS = [2, 0]
IMAGES, TEACHER_HEADS, TOKENS = 2, 3, 4


def value_of(student: np.ndarray, teacher: np.ndarray, lengths: list[int]) -> float:
    """Sum p ln(p / q) over the keys of each query and average over queries and heads, padded tokens cut off."""
    rows = []
    for image, length in enumerate(lengths):
        for ours, theirs in enumerate(HEADS):
            for query in range(length):
                p = softmax(teacher[image, theirs, query, :length])
                rows.append(rel_entr(p, softmax(student[image, ours, query, :length])).sum())
    return float(np.mean(rows))


def case(name: str, scale: float, lengths: list[int], rng: np.random.Generator) -> dict[str, Any]:
    student, teacher = (
        np.round(8 * scale * rng.standard_normal((IMAGES, heads, TOKENS, TOKENS))) / 8
        for heads in (len(HEADS), TEACHER_HEADS)
    )
    value = value_of(student, teacher, lengths)
    return dict(name=name, lengths=lengths, student=student.tolist(), teacher=teacher.tolist(), value=value)


def main() -> None:
    rng = np.random.default_rng(0)
    cases = [case('plain', 2, [4, 4], rng), case('peaked', 8, [4, 4], rng), case('padded', 2, [4, 2], rng)]
    how = 'python tests/golden/attention_map.py: scipy.special.softmax and rel_entr in float64, row by row'
    Path(__file__).with_suffix('.json').write_text(json.dumps(dict(how=how, heads=HEADS, cases=cases)) + '\n')


if __name__ == '__main__':
    main()
