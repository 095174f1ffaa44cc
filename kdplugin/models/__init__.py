"""Things with weights: backbones, necks and heads, registered in ``kdplugin.registry.MODELS``."""

from importlib.util import find_spec

from kdplugin.models.backbones import MobileNetV3Small

__all__ = ['MobileNetV3Small']

if find_spec('mmseg') is not None:  # a user of mmdet alone has none
    from kdplugin.models.decode_heads import LightASPPHead

    __all__ += ['LightASPPHead']

if find_spec('mmdet') is not None:
    from kdplugin.models.detectors import OrionStudent, RigPreprocessor

    __all__ += ['OrionStudent', 'RigPreprocessor']

if find_spec('timm') is not None:
    from kdplugin.models.backbones.eva_student import EVAViTStudent
    from kdplugin.models.backbones.eva_vit import EVAViT
    from kdplugin.models.backbones.timm_backbone import TimmBackbone

    __all__ += ['EVAViT', 'EVAViTStudent', 'TimmBackbone']

if find_spec('timm') is not None and find_spec('mmcv') is not None:
    from kdplugin.models.necks import SimpleFeaturePyramid

    __all__ += ['SimpleFeaturePyramid']

if find_spec('diffusers') is not None:
    from kdplugin.models.generators import WanLiteStudent

    __all__ += ['WanLiteStudent']
