# Teacher: UPerNet on timm's ConvNeXt V2-Tiny, 80k on Cityscapes, to be trained first.
# Source: Woo et al., ConvNeXt V2 (arXiv 2301.00808), weights of timm; Xiao et al., UPerNet (arXiv 1807.10221). The
#   optimizer is mmseg's for ConvNeXt, without the decay of rates by layer.
# Published: none for this combination.
# Weights: timm's come from its hub at the start.
# Train: tools/dist_train.sh configs/segmentation/upernet_timm-convnextv2-tiny_80k_cityscapes-512x1024.py 4
# Expected: not measured here.
# Cost: 80,000 steps of 4 x 2 images; the model has 60,185,254 parameters.
_base_ = ['mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py']

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='kdplugin.TimmBackbone',
        model_name='convnextv2_tiny.fcmae_ft_in22k_in1k',
        pretrained=True,
        drop_path_rate=0.2,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=80000, by_epoch=False),
]
