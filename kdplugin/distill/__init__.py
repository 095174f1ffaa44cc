"""Distillation engine: who looks at what, and when."""

from kdplugin.distill.distiller import build_distiller, distillation_of

__all__ = ['build_distiller', 'distillation_of']
