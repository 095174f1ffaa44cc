"""Ways of distilling: what a pair's ``type`` names. Each is built from its settings and sees one ``StepContext``."""

from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.tap_loss import TapLoss

__all__ = ['Method', 'StepContext', 'TapLoss']
