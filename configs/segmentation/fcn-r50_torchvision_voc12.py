# Teacher: torchvision's fcn_resnet50 (COCO images, the 21 VOC classes) as an mmseg model. Not trained here.
# Source: torchvision, FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1; Long, Shelhamer, Darrell, Fully
#   Convolutional Networks for Semantic Segmentation (CVPR 2015).
# Weights:
#   mkdir -p checkpoints
#   python -c "import torch; from torchvision.models.segmentation import FCN_ResNet50_Weights as W; \
#     torch.save(W.DEFAULT.get_state_dict(), 'checkpoints/fcn_resnet50_coco.pth')"
#   python tools/convert_teacher.py checkpoints/fcn_resnet50_coco.pth \
#     checkpoints/fcn_resnet50_coco_voc_mmseg.pth
# Test: python tools/test.py configs/segmentation/fcn-r50_torchvision_voc12.py \
#     checkpoints/fcn_resnet50_coco_voc_mmseg.pth
# Expected: torchvision states 60.5 mIoU on COCO val2017 with VOC labels; on VOC 2012 val not measured yet.
# Cost: 35,322,218 parameters with the auxiliary head; 138.4 G multiply-adds for a 512x512 image without it.
_base_ = [
    '../_base_/models/fcn_r50_torchvision.py',
    'mmseg::_base_/datasets/pascal_voc12.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
crop_size = (512, 512)
data_preprocessor = dict(size=crop_size)
model = dict(data_preprocessor=data_preprocessor)
