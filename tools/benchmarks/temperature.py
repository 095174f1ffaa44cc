#!/usr/bin/env python
"""What the temperature does to a teacher's opinion and to the gradient: tools/benchmarks/temperature.py"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdplugin.losses import kl_divergence

TARGET = Path(__file__).parents[2] / 'docs/results/temperature.json'
TEACHER = (6.0, 4.0, 1.0, -2.0)
STUDENT = (3.0, 1.0, 2.0, 0.0)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)


def row(temperature: float) -> dict[str, Any]:
    """Return what one temperature does, in numbers that no rounding of a processor changes."""
    teacher = torch.tensor([TEACHER], dtype=torch.float64)
    student = torch.tensor([STUDENT], dtype=torch.float64, requires_grad=True)
    soft = (teacher / temperature).softmax(1)
    loss = kl_divergence(student, teacher, temperature=temperature)
    loss.backward()
    assert student.grad is not None  # noqa: S101 - for mypy
    length = float(student.grad.norm())
    return dict(
        temperature=temperature,
        teacher=[round(value, 4) for value in soft[0].tolist()],
        entropy_bits=round(float(-(soft * soft.log()).sum()) / math.log(2), 4),
        loss=round(float(loss.detach()), 4),
        gradient=round(length, 4),
        gradient_without_square=round(length / temperature**2, 6),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description='Compute docs/results/temperature.json.')
    parser.parse_args(argv)
    rows = [row(temperature) for temperature in TEMPERATURES]
    TARGET.write_text(json.dumps(dict(teacher=TEACHER, student=STUDENT, rows=rows), indent=1) + '\n')
    print(TARGET)
    return 0


if __name__ == '__main__':
    sys.exit(main())
