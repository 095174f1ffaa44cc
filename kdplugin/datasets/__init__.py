"""Data: scenes of handwritten digits, drawn on the user's own machine, and Bench2Drive as ORION reads it."""

from importlib.util import find_spec

from kdplugin.datasets.bench2drive import Bench2DriveDataset
from kdplugin.datasets.prompts import PromptDataset

__all__ = ['Bench2DriveDataset', 'PromptDataset']

if find_spec('mmcv') is not None:
    from kdplugin.datasets.vqa import LoadAnnotationVQA

    __all__ += ['LoadAnnotationVQA']

if find_spec('mmdet') is not None:
    from kdplugin.datasets.per_view import PerView

    __all__ += ['PerView']
