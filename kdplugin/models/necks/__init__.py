"""Necks for mmdet's detectors."""

from kdplugin.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
