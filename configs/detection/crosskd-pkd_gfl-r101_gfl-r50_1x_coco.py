# CrossKD and PKD together: GFL-R101 teaches GFL-R50 through its head and on the pyramid, 1x on COCO.
# Source: Wang et al., CrossKD (arXiv 2306.11369); Cao et al., PKD (arXiv 2207.02039).
# Published: 40.2 -> 43.9 box AP, teacher 44.9 (CrossKD's README).
# Weights: the teacher's come from mmdet's model zoo at the start.
# Train: tools/dist_train.sh configs/detection/crosskd-pkd_gfl-r101_gfl-r50_1x_coco.py 8
# Expected: not measured here. Both weights are found from a share of the task.
# Cost: 12 epochs of COCO; the teacher (51,432,665 parameters) runs to its neck, its head twice, in every step.
_base_ = ['./crosskd_gfl-r101_gfl-r50_1x_coco.py']

model = dict(pairs=dict(neck=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), target_ratio=0.5)))
