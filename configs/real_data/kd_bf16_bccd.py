# Detection check: the student with a teacher that runs in bfloat16. Is what it learns as good?
_base_ = ['./kd_bccd.py']
model = dict(teacher=dict(precision='bfloat16'))
