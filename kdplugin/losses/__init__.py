"""Distillation losses: tensors in, one scalar out."""

from kdplugin.losses.cosine import CosineLoss, cosine_distance
from kdplugin.losses.kl_divergence import KLDivergenceLoss, kl_divergence
from kdplugin.losses.pkd import PKDLoss, pearson_distance

__all__ = [
    'CosineLoss',
    'KLDivergenceLoss',
    'PKDLoss',
    'cosine_distance',
    'kl_divergence',
    'pearson_distance',
]
