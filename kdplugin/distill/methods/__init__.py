"""Ways of distilling: what a pair's ``type`` names. Each is built from its settings and sees one ``StepContext``."""

from kdplugin.distill.methods.attention_kd import AttentionKD
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.cross_kd import CrossKD
from kdplugin.distill.methods.fgd import FGD
from kdplugin.distill.methods.mask_kd import MaskKD
from kdplugin.distill.methods.mgd import MGD
from kdplugin.distill.methods.query_kd import QueryKD
from kdplugin.distill.methods.tap_loss import TapLoss

__all__ = ['FGD', 'MGD', 'AttentionKD', 'CrossKD', 'MaskKD', 'Method', 'QueryKD', 'StepContext', 'TapLoss']
