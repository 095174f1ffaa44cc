"""Distillation engine: who looks at what, and when."""

from kdplugin.distill.distiller import build_distiller, distillation_of
from kdplugin.distill.schedules import Moment

__all__ = ['Moment', 'build_distiller', 'distillation_of']
