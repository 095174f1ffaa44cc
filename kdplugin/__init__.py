"""Knowledge distillation for detection and segmentation as a plugin for mmengine's Runner."""

__version__ = '0.1.0'
