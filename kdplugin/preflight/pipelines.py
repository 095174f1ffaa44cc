"""Does a pipeline give the model what it needs, and nothing twice?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.data import LOADERS
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of

MASK_HEADS = ('mask_head', 'mask_roi_extractor')


def pipelines_of(config: Mapping[str, Any], loader: str) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield the path and the transforms of every pipeline of a loader, those of wrapped datasets first."""
    settings = config.get(loader)
    if isinstance(settings, Mapping):
        yield from _pipelines(settings.get('dataset'), f'{loader}.dataset')


def _pipelines(dataset: Any, path: str) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get('dataset')
    yield from _pipelines(inner, f'{path}.dataset')
    for number, one in enumerate(dataset.get('datasets') or ()):
        yield from _pipelines(one, f'{path}.datasets.{number}')
    pipeline = dataset.get('pipeline')
    if isinstance(pipeline, list | tuple) and pipeline:
        yield f'{path}.pipeline', [step for step in pipeline if isinstance(step, Mapping)]


def all_steps(steps: Any) -> Iterator[Mapping[str, Any]]:
    """Yield transforms and those inside them."""
    if isinstance(steps, Mapping):
        if 'type' in steps:
            yield steps
        for value in steps.values():
            yield from all_steps(value)
    elif isinstance(steps, list | tuple):
        for step in steps:
            yield from all_steps(step)


def switched_pipelines(config: Config) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield the path and the transforms of every pipeline that a hook puts in place of the training's."""
    for path, hook in hooks_of(config):
        steps = hook.get('switch_pipeline')
        if isinstance(steps, list | tuple) and steps:
            yield f'{path}.switch_pipeline', [step for step in steps if isinstance(step, Mapping)]


def loads_labels(kind: str) -> bool:
    """Tell whether a transform loads labels of any kind: LoadAnnotations, LoadPanopticAnnotations, a depth map's."""
    return kind.startswith('Load') and 'Annotation' in kind


def check_pipelines(found: Findings, config: Config) -> None:
    """Every loader's images are loaded, labelled, and packed for the model at the end; nothing is normalised twice."""
    loaded = [(loader, list(pipelines_of(config, loader))) for loader in LOADERS]
    for loader, given in [*loaded, *(('train_dataloader', [one]) for one in switched_pipelines(config))]:
        if not given or not given[-1][1]:
            continue
        path, last = given[-1]
        kinds = [kind_of(step) for _, steps in given for step in all_steps(steps)]
        if not any('Pack' in kind for kind in kinds) and any(_is_host(kind) for kind in kinds):
            found.error(
                path,
                f'Expected the pipeline to end with a transform that packs but got {kind_of(last[-1])} at its end. Add '
                f"dict(type='{_packer(config)}').",
            )
        if not any(map(loads_labels, kinds)) and any('LoadImage' in kind for kind in kinds) and _needs(loader):
            found.error(
                path,
                "Expected the labels of the images but the pipeline loads none. Add dict(type='LoadAnnotations'"
                f'{", with_bbox=True" if _scope(config) == "mmdet" else ""}).',
            )
        _check_order(found, path, last, kinds)
        _check_masks(found, config, loader, path, given)


def _needs(loader: str) -> bool:
    return loader == 'train_dataloader'


def _is_host(kind: str) -> bool:
    return kind.startswith(('LoadImage', 'LoadAnnotations', 'Resize', 'RandomFlip', 'RandomCrop'))


def _scope(config: Mapping[str, Any]) -> str:
    return str(config.get('default_scope') or '')


def _packer(config: Mapping[str, Any]) -> str:
    return 'PackSegInputs' if _scope(config) == 'mmseg' else 'PackDetInputs'


def _check_order(found: Findings, path: str, steps: list[Mapping[str, Any]], kinds: list[str]) -> None:
    own = [kind_of(step) for step in steps]
    packers = [number for number, kind in enumerate(own) if kind.startswith('Pack') and kind.endswith('Inputs')]
    if packers and packers[0] != len(own) - 1:
        found.error(
            path,
            f'Expected {own[packers[0]]} at the end of the pipeline but got {own[packers[0] + 1]} after it, which gets '
            'no image any more. Move it before.',
        )
    loads = [number for number, kind in enumerate(own) if kind.startswith('LoadImage')]
    if loads and loads[0] != 0 and own[0] in ('Resize', 'RandomFlip', 'RandomCrop', 'Pad', 'PhotoMetricDistortion'):
        found.error(path, f'Expected the image to be loaded first but got {own[0]} before {own[loads[0]]}. Swap them.')
    if 'Normalize' in kinds:
        found.warning(
            path,
            'Expected images to be normalised by data_preprocessor but got Normalize in the pipeline besides. They '
            'would be normalised twice: remove one of them.',
        )


def _has_key(node: Any, keys: tuple[str, ...]) -> bool:
    if isinstance(node, Mapping):
        return any(key in keys and node[key] is not None for key in node) or any(
            _has_key(value, keys) for value in node.values()
        )
    return isinstance(node, list | tuple) and any(_has_key(value, keys) for value in node)


def _check_masks(
    found: Findings, config: Config, loader: str, path: str, given: list[tuple[str, list[Mapping[str, Any]]]]
) -> None:
    """Boxes and masks are loaded where heads learn them."""
    model = config.get('model')
    if loader != 'train_dataloader' or not isinstance(model, Mapping) or _scope(config) != 'mmdet':
        return
    student = model.get('student', model)
    loads = [step for _, steps in given for step in all_steps(steps) if kind_of(step) == 'LoadAnnotations']
    if not loads or not isinstance(student, Mapping):
        return
    roi = student.get('roi_head')
    if isinstance(roi, Mapping) and roi.get('mask_head') is not None and not any(one.get('with_mask') for one in loads):
        found.error(
            path,
            'Expected with_mask=True in LoadAnnotations, because the student has a mask_head, but got none. Add it.',
        )
    boxes = student.get('bbox_head') is not None or student.get('rpn_head') is not None
    if boxes and all(one.get('with_bbox') is False for one in loads):
        found.error(
            path, 'Expected with_bbox=True in LoadAnnotations, because the student learns boxes, but got False. Set it.'
        )
