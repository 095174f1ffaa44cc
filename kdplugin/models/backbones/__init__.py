"""Backbones."""

from kdplugin.models.backbones.mobilenet_v3 import MobileNetV3Small

__all__ = ['MobileNetV3Small']
