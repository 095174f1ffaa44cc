"""Query KD: the predictions of a DETR-style teacher, matched one to one to those of the student.

N image, L decoder layer, Q query, K query of the teacher that teaches, C class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.methods import query_match
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import check_positive
from kdplugin.losses.query_box import query_box_distance
from kdplugin.losses.query_class import Scores, foreground_weight, query_class_divergence
from kdplugin.module_paths import find_module
from kdplugin.registry import MODELS


@MODELS.register_module()
class QueryKD(Method):
    """Mean over decoder layers and matched queries of class_weight * KL + l1_weight * L1 + giou_weight * (1 - GIoU).

    Papers: Chang et al., "DETRDistill: A Universal Knowledge Distillation Framework for DETR-families", arXiv
    2211.10156, whose logits distillation matches the student's predictions to the teacher's by the Hungarian algorithm,
    layer by layer; the queries count by the teacher's highest score, as in KD-DETR, arXiv 2211.08071 (see
    ``query_class_divergence``, ``query_box_distance``). The assignment minimises, in each layer and image, the weighted
    sum that is trained. The sides may differ in queries, widths and decoder layers: student layer l of L learns from
    teacher layer ceil(l L_t / L). No ground truth is used, and DINO's queries of denoising are left out.

    It knows mmdet's DETR, Conditional DETR, DAB-DETR, Deformable DETR and DINO, whose heads put out class logits
    (L, N, Q, C) and boxes (L, N, Q, 4) in parts of the image. DETRDistill's other two parts, feature distillation and
    the assignment by the teacher's queries, are not in it; of the papers, the abstracts were compared. Matching runs on
    the CPU: on one core, for 6 layers, 2 images and random predictions, 0.12 s of 300 queries and 1.8 s of 900, of
    which ``queries=100`` leaves 0.06 s.

    Args:
        name: of the pair.
        tap: path of the heads, ``student_tap`` and ``teacher_tap`` where they differ.
        class_weight: of the KL divergence between class scores.
        l1_weight: of the distance of the boxes.
        giou_weight: of their overlap.
        temperature: T > 0 of the class scores.
        queries: how many of the teacher's queries teach, those it is most sure of; None takes all that the student can
            take.
        layers: 'all' decoder layers, or the 'last'.
        taps: see ``Method``.

    Raises:
        ConfigError: the heads score classes in different ways, or a setting cannot be used.
        TapError: the taps do not put out class logits and boxes, or other classes.
    """

    def __init__(
        self,
        name: str,
        *,
        tap: str = 'bbox_head',
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        temperature: float = 1.0,
        queries: int | None = None,
        layers: str = 'all',
        **taps: Any,
    ) -> None:
        super().__init__(name, tap=tap, **taps)
        if layers not in ('all', 'last'):
            raise ConfigError(f"Expected layers 'all' or 'last' in pair {name!r} but got {layers!r}. Write 'all'.")
        if queries is not None and (not isinstance(queries, int) or queries < 1):
            raise ConfigError(f'Expected queries >= 1 in pair {name!r} but got {queries!r}. None takes all.')
        self.class_weight = class_weight
        self.boxes = dict(l1_weight=l1_weight, giou_weight=giou_weight)
        self.temperature: float = check_positive(temperature, f'temperature of pair {name!r}', 'Try 1 to 4.')
        self.queries = queries
        self.layers = layers
        self.scores: Scores = 'sigmoid'
        self.own_queries = 0

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> None:
        (tap,), (other,) = self.student_taps, self.teacher_taps
        ours, theirs = student_probe.shapes[tap], teacher_probe.shapes[other]
        for path, shapes in ((tap, ours), (other, theirs)):
            if len(shapes) != 2 or any(len(shape) != 4 for shape in shapes) or shapes[1][3] != 4:
                raise TapError(
                    f'Expected pair {self.name!r} to see class logits (L, N, Q, C) and boxes (L, N, Q, 4) but {path!r} '
                    f"gives {shapes}. Tap the bbox_head of mmdet's DETR-style detectors."
                )
        if ours[0][3] != theirs[0][3]:
            raise TapError(
                f'Expected student and teacher of pair {self.name!r} to score the same classes but got {ours[0][3]} '
                f'and {theirs[0][3]}. Use a teacher trained on the same classes.'
            )
        kinds = [
            _scores_of(find_module(model, path, owner))
            for model, path, owner in ((student, tap, 'student'), (teacher.module, other, 'teacher'))
        ]
        if kinds[0] != kinds[1]:
            raise ConfigError(
                f'Expected both heads of pair {self.name!r} to score classes alike but got {kinds[0]} and {kinds[1]}. '
                'Use models with the same kind of loss_cls.'
            )
        self.scores, self.own_queries = kinds[0], ours[0][2]

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return class logits (N, C, K) and boxes (N, 4, K) of the last layer's matched queries."""
        ours, theirs, _ = self._matched(context)
        return [(one[-1].transpose(1, 2), other[-1].transpose(1, 2)) for one, other in zip(ours, theirs, strict=True)]

    def _matched(self, context: StepContext) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return logits and boxes (L, N, K, ...) of the queries that teach, and how much each of them counts."""
        ours = [values[:, :, -self.own_queries :] for values in context.student_tensors[self.student_taps[0]]]
        theirs = context.teacher_tensors[self.teacher_taps[0]]
        if self.layers == 'last':
            ours, theirs = ([values[-1:] for values in side] for side in (ours, theirs))
        order = paired_layers(len(ours[0]), len(theirs[0]))
        theirs = [values[order] for values in theirs]
        weight = foreground_weight(theirs[0], scores=self.scores)
        count = min(ours[0].shape[2], weight.shape[2], self.queries or weight.shape[2])
        teaching = query_match.most_confident(weight, count)
        weight, theirs = weight.gather(-1, teaching), [query_match.take(values, teaching) for values in theirs]
        partners = self._partners(ours, theirs, weight)
        return [query_match.take(values, partners) for values in ours], theirs, weight

    def distance(self, context: StepContext) -> Tensor:
        ours, theirs, weight = self._matched(context)
        by_class = query_class_divergence(
            ours[0], theirs[0], scores=self.scores, temperature=self.temperature, weight=weight
        )
        return self.class_weight * by_class + query_box_distance(ours[1], theirs[1], weight=weight, **self.boxes)

    @torch.no_grad()
    def _partners(self, ours: list[Tensor], theirs: list[Tensor], weight: Tensor) -> Tensor:
        """Return (L, N, K): the student's query for each of the teacher's."""
        costs = self.class_weight * query_match.class_costs(
            ours[0], theirs[0], scores=self.scores, temperature=self.temperature
        )
        boxes = [
            query_match.box_costs(one, other, **self.boxes)
            for one, other in zip(ours[1].flatten(0, 1), theirs[1].flatten(0, 1), strict=True)
        ]
        return query_match.assign(weight[..., None] * (costs + torch.stack(boxes).view(costs.shape)))


def paired_layers(student: int, teacher: int) -> list[int]:
    """Return for each of the student's layers the teacher's that stands where it stands, the last for the last.

    Example:
        >>> paired_layers(3, 6)
        [1, 3, 5]
    """
    return [-(-(layer + 1) * teacher // student) - 1 for layer in range(student)]


def _scores_of(head: Any) -> Scores:
    return 'sigmoid' if head.loss_cls.use_sigmoid else 'softmax'
