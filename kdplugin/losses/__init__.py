"""Distillation losses: tensors in, one scalar out."""

from kdplugin.losses.cosine import CosineLoss, cosine_distance
from kdplugin.losses.kl_divergence import KLDivergenceLoss, kl_divergence

__all__ = ['CosineLoss', 'KLDivergenceLoss', 'cosine_distance', 'kl_divergence']
