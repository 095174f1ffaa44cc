"""Detectors."""

from kdplugin.models.detectors.orion_student import OrionStudent
from kdplugin.models.detectors.rig_preprocessor import RigPreprocessor

__all__ = ['OrionStudent', 'RigPreprocessor']
