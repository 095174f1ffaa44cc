"""Distillation losses: tensors in, one scalar out."""

from kdplugin.losses.attention_map import AttentionMapLoss, attention_map_divergence
from kdplugin.losses.attention_transfer import AttentionTransferLoss, attention_transfer
from kdplugin.losses.cosine import CosineLoss, cosine_distance
from kdplugin.losses.cwd import CWDLoss, channel_wise_divergence
from kdplugin.losses.dist import DISTLoss, dist_relations
from kdplugin.losses.dkd import DKDLoss, decoupled_divergence
from kdplugin.losses.fitnet import L1Loss, L2Loss, l1_distance, l2_distance
from kdplugin.losses.kl_divergence import KLDivergenceLoss, kl_divergence
from kdplugin.losses.localization import LocalizationDistillationLoss, localization_divergence
from kdplugin.losses.pkd import PKDLoss, pearson_distance
from kdplugin.losses.rkd import RKDLoss, relational_distance

__all__ = [
    'AttentionMapLoss',
    'AttentionTransferLoss',
    'CWDLoss',
    'CosineLoss',
    'DISTLoss',
    'DKDLoss',
    'KLDivergenceLoss',
    'L1Loss',
    'L2Loss',
    'LocalizationDistillationLoss',
    'PKDLoss',
    'RKDLoss',
    'attention_map_divergence',
    'attention_transfer',
    'channel_wise_divergence',
    'cosine_distance',
    'decoupled_divergence',
    'dist_relations',
    'kl_divergence',
    'l1_distance',
    'l2_distance',
    'localization_divergence',
    'pearson_distance',
    'relational_distance',
]
