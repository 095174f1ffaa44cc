"""Distillation engine: who looks at what, and when."""

from importlib.util import find_spec

from kdplugin.distill.distiller import build_distiller, distillation_of
from kdplugin.distill.schedules import Moment

__all__ = ['Moment', 'build_distiller', 'distillation_of']

if find_spec('diffusers') is not None:
    from kdplugin.distill.diffusion.diffusion_distiller import build_diffusion_distiller

    __all__ += ['build_diffusion_distiller']
