"""Thin adapters to mmengine's Runner."""

from kdplugin.hooks.distillation_hook import DistillationHook
from kdplugin.hooks.safe_checkpoint_hook import SafeCheckpointHook
from kdplugin.hooks.save_pretrained_hook import SavePretrainedHook
from kdplugin.hooks.weight_projection_hook import WeightProjectionHook

__all__ = ['DistillationHook', 'SafeCheckpointHook', 'SavePretrainedHook', 'WeightProjectionHook']
