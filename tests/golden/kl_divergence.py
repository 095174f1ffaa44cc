"""Make kl_divergence.json: reference values in float64 from scipy, without torch and without kdplugin.

Run `python tests/golden/kl_divergence.py` to write the file anew. Logits are multiples of 1/8, so float32 holds them
exactly. N image, C class, H W position.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import rel_entr, softmax

SHAPES = {
    'one_pixel': (1, 2, 1, 1),
    'wide': (1, 5, 2, 7),
    'batch': (3, 4, 5, 2),
    'flat': (4, 6),
    'peaked': (2, 3, 4, 4),
}
SCALES = {'peaked': 40.0}
TEMPERATURES = (0.5, 1.0, 4.0)


def value_of(student: np.ndarray, teacher: np.ndarray, temperature: float, labels: np.ndarray | None) -> float:
    """T^2 * mean over pixels that are not 255 of sum over classes of p ln(p / q), p teacher, q student."""
    wanted, given = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
    per_pixel = rel_entr(wanted, given).sum(axis=1)
    kept = per_pixel if labels is None else per_pixel[labels != 255]
    return float(temperature**2 * kept.mean())


def case(name: str, temperature: float, rng: np.random.Generator, ignore: bool) -> dict[str, Any]:
    shape, scale = SHAPES[name], SCALES.get(name, 2.0)
    student, teacher = (np.round(8 * scale * rng.standard_normal(shape)) / 8 for _ in range(2))
    labels = rng.choice([0, 1, 255], size=(shape[0], *shape[2:])) if ignore else None
    return dict(
        name=name,
        temperature=temperature,
        student=student.tolist(),
        teacher=teacher.tolist(),
        labels=None if labels is None else labels.tolist(),
        value=value_of(student, teacher, temperature, labels),
    )


def main() -> None:
    rng = np.random.default_rng(0)
    cases = [case(name, temperature, rng, False) for name in SHAPES for temperature in TEMPERATURES]
    cases += [case(name, 4.0, rng, True) for name in ('wide', 'batch', 'flat')]
    how = 'python tests/golden/kl_divergence.py: scipy.special.softmax and rel_entr in float64, labels 255 left out'
    Path(__file__).with_suffix('.json').write_text(json.dumps(dict(how=how, cases=cases)) + '\n')


if __name__ == '__main__':
    main()
