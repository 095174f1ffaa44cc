"""Tiny models of mmdet on which the methods are proven: dense heads, masks, and the DETR family.

``stages`` of a ResNet-18 of 8 base channels and the cheapest necks and transformers that mmdet builds.
"""

from __future__ import annotations

from typing import Any

from engine_fixtures import detector, resnet
from mmengine.config import ConfigDict

DENSE = ('GFL', 'ATSS', 'RetinaNet', 'FCOS')
QUERIES = ('DETR', 'ConditionalDETR', 'DABDETR', 'DeformableDETR', 'DINO')
CLASSES = 10
STRIDES = [8, 16, 32, 64, 128]
GN = dict(type='GN', num_groups=4)


def dense(kind: str, *, width: int = 8, neck: int = 16, convs: int = 2, norm: Any = GN, **head: Any) -> dict[str, Any]:
    """Return a one-stage detector of mmdet with towers of ``convs`` convolutions."""
    config = detector(width, neck, CLASSES)
    common = dict(num_classes=CLASSES, in_channels=neck, stacked_convs=convs, feat_channels=16, norm_cfg=norm)
    anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    focal = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
    coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
    if kind == 'GFL':
        config['bbox_head'].update(common)
    elif kind == 'ATSS':
        config['bbox_head'] = dict(
            type='ATSSHead', **common, anchor_generator=anchors, bbox_coder=coder, loss_cls=focal,
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
            loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        )  # fmt: skip
    elif kind == 'RetinaNet':
        config['bbox_head'] = dict(
            type='RetinaHead', **common, anchor_generator=dict(anchors, ratios=[0.5, 1.0, 2.0]), bbox_coder=coder,
            loss_cls=focal, loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        )  # fmt: skip
        assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
        sampler = dict(type='PseudoSampler')
        config['train_cfg'] = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1, debug=False)
    else:
        config['bbox_head'] = dict(
            type='FCOSHead', **common, strides=STRIDES, loss_cls=focal, norm_on_bbox=True, centerness_on_reg=True,
            loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
            loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        )  # fmt: skip
        config['train_cfg'] = None
    config['type'] = kind
    config['bbox_head'].update(head)
    return config


def mask_rcnn(width: int = 8, neck: int = 16, *, classes: int = CLASSES, agnostic: bool = False) -> dict[str, Any]:
    """Return a Mask R-CNN of mmdet with the smallest heads."""
    config = detector(width, neck, classes)
    del config['bbox_head']
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3, ignore_iof_thr=-1)
    sampler = dict(type='RandomSampler', num=16, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True)
    deltas = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4)
    proposals = dict(nms_pre=40, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)

    def extractor(size: int) -> dict[str, Any]:
        roi = dict(type='RoIAlign', output_size=size, sampling_ratio=0)
        return dict(type='SingleRoIExtractor', roi_layer=roi, out_channels=neck, featmap_strides=STRIDES[:4])

    return ConfigDict(
        config,
        type='MaskRCNN',
        rpn_head=dict(
            type='RPNHead', in_channels=neck, feat_channels=16, bbox_coder=deltas,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0], strides=STRIDES),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=extractor(3),
            bbox_head=dict(
                type='Shared2FCBBoxHead', in_channels=neck, fc_out_channels=16, roi_feat_size=3, num_classes=classes,
                bbox_coder=deltas, loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss'),
            ),
            mask_roi_extractor=extractor(6),
            mask_head=dict(
                type='FCNMaskHead', num_convs=1, in_channels=neck, conv_out_channels=8, num_classes=classes,
                class_agnostic=agnostic, loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
            ),
        ),
        train_cfg=dict(
            rpn=dict(assigner=assigner, sampler=dict(sampler, add_gt_as_proposals=False), allowed_border=-1,
                     pos_weight=-1, debug=False),
            rpn_proposal=proposals,
            rcnn=dict(assigner=assigner, sampler=sampler, mask_size=12, pos_weight=-1, debug=False),
        ),
        test_cfg=dict(
            rpn=proposals,
            rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5, mask_thr_binary=0.5),
        ),
    )  # fmt: skip


def queries(kind: str, *, width: int = 8, dims: int = 32, count: int = 6, layers: int = 2) -> dict[str, Any]:
    """Return a detector of mmdet's DETR family with ``count`` queries and ``layers`` decoder layers."""
    multi = kind in ('DeformableDETR', 'DINO')
    dims = 256 if kind == 'ConditionalDETR' else dims  # its decoder knows no other
    attention = dict(embed_dims=dims, num_heads=4, dropout=0.0)
    deformable = dict(embed_dims=dims, num_heads=4, num_levels=2, num_points=2, dropout=0.0)
    ffn = dict(embed_dims=dims, feedforward_channels=32, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU'))
    encoder = dict(self_attn_cfg=deformable if multi else attention, ffn_cfg=ffn)
    cross = deformable if multi else attention
    decoder = dict(self_attn_cfg=attention, cross_attn_cfg=cross, ffn_cfg=ffn)
    if kind in ('ConditionalDETR', 'DABDETR'):
        inner = dict(embed_dims=dims, num_heads=4, attn_drop=0.0, cross_attn=False)
        decoder.update(self_attn_cfg=inner, cross_attn_cfg=dict(inner, cross_attn=True))
    if kind == 'DABDETR':
        decoder['ffn_cfg'] = encoder['ffn_cfg'] = dict(ffn, act_cfg=dict(type='PReLU'))
        encoder['self_attn_cfg'] = dict(attention)
    focal = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
    softmax = dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, class_weight=1.0)
    positions = dict(num_feats=dims // 2, normalize=True)
    match = [
        dict(type='ClassificationCost', weight=1.0) if kind == 'DETR' else dict(type='FocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    base = detector(width, dims, CLASSES)
    config = dict(
        type=kind, _scope_='mmdet', num_queries=count, data_preprocessor=base['data_preprocessor'],
        backbone=resnet(width, out_indices=(2, 3) if multi else (3,)),
        neck=dict(type='ChannelMapper', in_channels=[width * 4, width * 8] if multi else [width * 8],
                  out_channels=dims, kernel_size=1, act_cfg=None, norm_cfg=GN, num_outs=2 if multi else 1),
        encoder=dict(num_layers=1, layer_cfg=encoder),
        decoder=dict(num_layers=layers, layer_cfg=decoder, return_intermediate=True)
        | (dict(post_norm_cfg=None) if multi else {}),
        positional_encoding=positions,
        bbox_head=dict(
            type=f'{kind}Head' if kind != 'DETR' else 'DETRHead', num_classes=CLASSES, embed_dims=dims,
            loss_cls=softmax if kind == 'DETR' else focal, loss_bbox=dict(type='L1Loss', loss_weight=5.0),
            loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        ),
        train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=match)),
        test_cfg=dict(max_per_img=count),
    )  # fmt: skip
    if kind == 'DABDETR':
        config['decoder'].update(query_dim=4, query_scale_type='cond_elewise', with_modulated_hw_attn=True)
        config['num_patterns'] = 0
    if kind == 'DINO':
        config.update(
            with_box_refine=True, as_two_stage=True, num_feature_levels=2,
            dn_cfg=dict(label_noise_scale=0.5, box_noise_scale=1.0,
                        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=4)),
        )  # fmt: skip
    if kind == 'DeformableDETR':
        config.update(with_box_refine=True, as_two_stage=False, num_feature_levels=2)
    return ConfigDict(config)
