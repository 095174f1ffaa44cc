"""Decode heads for mmseg's segmentors."""

from kdplugin.models.decode_heads.light_aspp import LightASPPHead

__all__ = ['LightASPPHead']
