# Student and baseline: MobileNetV3-Small with the light ASPP decoder on PASCAL VOC 2012, not distilled.
# Source: backbone Howard et al., Searching for MobileNetV3 (ICCV 2019), torchvision's ImageNet weights; data
#   and schedule are mmseg's own pascal_voc12 and schedule_40k.
# Weights:
#   mkdir -p checkpoints
#   python -c "import torch; from torchvision.models import MobileNet_V3_Small_Weights as W; \
#     torch.save(W.DEFAULT.get_state_dict(), 'checkpoints/mobilenet_v3_small_imagenet.pth')"
# Train: python tools/train.py configs/segmentation/mbv3s-aspp_40k_voc12-512x512.py
# Expected: not measured yet. It is the number to beat, not a published one.
# Cost: 2,517,365 parameters, 2.6 G multiply-adds for a 512x512 image; 40,000 steps of 16 images.
_base_ = [
    '../_base_/models/mbv3s_aspp.py',
    'mmseg::_base_/datasets/pascal_voc12.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
crop_size = (512, 512)
data_preprocessor = dict(size=crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/mobilenet_v3_small_imagenet.pth')),
)
train_dataloader = dict(batch_size=16)  # mmseg's four devices of four images, on one device
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
