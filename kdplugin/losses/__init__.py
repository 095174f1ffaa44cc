"""Distillation losses: tensors in, one scalar out."""

from kdplugin.losses.attention_map import AttentionMapLoss, attention_map_divergence
from kdplugin.losses.attention_transfer import AttentionTransferLoss, attention_transfer
from kdplugin.losses.box_overlap import BoxOverlapLoss, giou_distance
from kdplugin.losses.cosine import CosineLoss, cosine_distance
from kdplugin.losses.cwd import CWDLoss, channel_wise_divergence
from kdplugin.losses.dist import DISTLoss, dist_relations
from kdplugin.losses.dkd import DKDLoss, decoupled_divergence
from kdplugin.losses.fgd import FGDFocalLoss, focal_distance
from kdplugin.losses.fitnet import L1Loss, L2Loss, l1_distance, l2_distance
from kdplugin.losses.instance_mask import InstanceMaskLoss, mask_divergence
from kdplugin.losses.kl_divergence import KLDivergenceLoss, kl_divergence
from kdplugin.losses.localization import LocalizationDistillationLoss, localization_divergence
from kdplugin.losses.pkd import PKDLoss, pearson_distance
from kdplugin.losses.quality_focal import SoftQualityFocalLoss, quality_focal_divergence
from kdplugin.losses.query_box import QueryBoxLoss, query_box_distance
from kdplugin.losses.query_class import QueryClassLoss, foreground_weight, query_class_divergence
from kdplugin.losses.rkd import RKDLoss, relational_distance

__all__ = [
    'AttentionMapLoss',
    'AttentionTransferLoss',
    'BoxOverlapLoss',
    'CWDLoss',
    'CosineLoss',
    'DISTLoss',
    'DKDLoss',
    'FGDFocalLoss',
    'InstanceMaskLoss',
    'KLDivergenceLoss',
    'L1Loss',
    'L2Loss',
    'LocalizationDistillationLoss',
    'PKDLoss',
    'QueryBoxLoss',
    'QueryClassLoss',
    'RKDLoss',
    'SoftQualityFocalLoss',
    'attention_map_divergence',
    'attention_transfer',
    'channel_wise_divergence',
    'cosine_distance',
    'decoupled_divergence',
    'dist_relations',
    'focal_distance',
    'foreground_weight',
    'giou_distance',
    'kl_divergence',
    'l1_distance',
    'l2_distance',
    'localization_divergence',
    'mask_divergence',
    'pearson_distance',
    'quality_focal_divergence',
    'query_box_distance',
    'query_class_divergence',
    'relational_distance',
]
