"""Make the shared fixtures of the engine's tests importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_fixtures import shared

__all__ = ['shared']
