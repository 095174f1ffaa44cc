"""What the scripts here share that run the authors' code of a method beside ours.

None of that code is in this repository: a script takes the path of a clone and writes down the commit and the numbers
that came out, in float64.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

Cases = list[dict[str, Any]]


def eighths(rng: np.random.Generator, *shape: int, scale: float = 2.0) -> torch.Tensor:
    """Return normal numbers rounded to multiples of 1/8, which float32 holds exactly, as float64."""
    return torch.from_numpy(np.round(8 * scale * rng.standard_normal(shape)) / 8)


class Nothing(ModuleType):
    """Stands for whatever a file imports but does not need for its arithmetic: decorators leave classes as they are."""

    Distiller = object

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) else self


def load(clone: Path, file: str, absent: tuple[str, ...] = ()) -> Any:
    """Import one file of a clone alone; the modules that it imports are replaced by nothing where ``absent``."""
    path = Path(file).with_suffix('').parts
    packages = ('.'.join(path[:end]) for end in range(1, len(path)))
    sys.modules.update({name: Nothing(name) for name in (*packages, *absent)})
    spec = importlib.util.spec_from_file_location('.'.join(path), clone / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: str, repository: str, file: str, make: Callable[[Path], Cases]) -> None:
    """Read the clone's path from the command line and write the cases beside the script."""
    parser = argparse.ArgumentParser(description=f'Write {Path(script).stem}.json from {repository}')
    parser.add_argument('clone', type=Path, help=f'git clone https://github.com/{repository}')
    clone = parser.parse_args().clone
    head = ['git', '-C', str(clone), 'rev-parse', 'HEAD']
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    how = f'python tests/golden/{Path(script).name} CLONE: {file} of github.com/{repository} at {commit}, float64'
    Path(script).with_suffix('.json').write_text(json.dumps(dict(how=how, cases=make(clone))) + '\n')
