"""Generators of images from text."""

from kdplugin.models.generators.wan_lite import WanLiteStudent

__all__ = ['WanLiteStudent']
