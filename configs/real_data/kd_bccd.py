# Detection check, student with a teacher: the baseline's whole recipe and two pairs.
# Source: PKD on the pyramid (arXiv 2207.02039); the teacher's scores by the quality focal loss, as CrossKD compares
#   them (arXiv 2306.11369), here between both models' own heads.
_base_ = ['./baseline_bccd.py']
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='configs/real_data/teacher_bccd.py', checkpoint='work_dirs/real_data/teacher_bccd/iter_400.pth'),
    pairs=dict(
        neck=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), weight=4.0),
        scores=dict(tap='bbox_head.gfl_cls', loss=dict(type='kdplugin.SoftQualityFocalLoss'), weight=20.0),
    ),
)
