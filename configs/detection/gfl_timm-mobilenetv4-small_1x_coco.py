# Student and baseline: GFL on timm's MobileNetV4-Conv-Small, 1x on COCO, not distilled.
# Source: Qin et al., MobileNetV4 (arXiv 2404.10518), weights of timm; the recipe is mmdet's GFL-R50 1x.
# Published: none for this combination.
# Weights: timm's come from its hub at the start. A file: checkpoint='file.safetensors' instead of pretrained=True.
# Train: tools/dist_train.sh configs/detection/gfl_timm-mobilenetv4-small_1x_coco.py 8
# Expected: not measured here. It is the number to beat.
# Cost: 12 epochs of COCO; the model has 9,563,385 parameters.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='kdplugin.TimmBackbone',
        model_name='mobilenetv4_conv_small.e2400_r224_in1k',
        out_indices=(1, 2, 3, 4),
        pretrained=True,
    ),
    neck=dict(in_channels=[32, 64, 96, 960]),
)
