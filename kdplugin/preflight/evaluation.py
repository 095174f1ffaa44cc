"""Is the student measured, on the data that it is validated on, and by the metric that keeps the best checkpoint?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.data import datasets_of, near_files
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.monitors import plateaus
from kdplugin.preflight.registries import find_type

COCO = ('bbox', 'segm', 'proposal', 'proposal_fast')
COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
COCO_RECALL = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
DEFAULTS = {'CocoMetric': 'bbox', 'LVISMetric': 'bbox', 'IoUMetric': 'mIoU', 'VOCMetric': 'mAP'}
"""What a metric measures where its config does not say."""
CHOICES = {
    'CocoMetric': ('metric', COCO),
    'LVISMetric': ('metric', COCO),
    'IoUMetric': ('iou_metrics', ('mIoU', 'mDice', 'mFscore')),
    'VOCMetric': ('metric', ('mAP', 'recall')),
}
"""The setting of a metric that says what is measured, and its values."""
SEGMENTATION = {
    'mIoU': ('aAcc', 'mIoU', 'mAcc'), 'mDice': ('aAcc', 'mDice', 'mAcc'),
    'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall'),
}  # fmt: skip


def metrics_of(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every metric of an evaluator."""
    evaluator = config.get(key)
    if isinstance(evaluator, Mapping):
        inner = evaluator.get('metrics')
        if inner is not None:
            evaluator, key = inner, f'{key}.metrics'
    if isinstance(evaluator, Mapping):
        yield key, evaluator
    elif isinstance(evaluator, list | tuple):
        yield from ((f'{key}.{number}', one) for number, one in enumerate(evaluator) if isinstance(one, Mapping))


def check_metrics(found: Findings, config: Config) -> None:
    """What is measured exists, and is compared with the labels of the images that are shown."""
    for key, loader in (('val_evaluator', 'val_dataloader'), ('test_evaluator', 'test_dataloader')):
        for path, metric in metrics_of(config, key):
            setting, choices = CHOICES.get(kind_of(metric), ('', ()))
            values = metric.get(setting) if setting else None
            for value in [values] if isinstance(values, str) else values or ():
                if value not in choices:
                    found.error(
                        f'{path}.{setting}',
                        f'Expected {setting} of {list(choices)} but got {value!r}.{did_you_mean(str(value), choices)} '
                        'Choose one.',
                    )
            _check_items(found, path, metric)
            _check_annotations(found, config, path, metric, loader)


def check_suited(found: Findings, config: Config) -> None:
    """What is measured is what the data has labels for, and what the student predicts."""
    kinds = {
        str(getattr(one.get('type'), '__name__', one.get('type'))) for one in datasets_of(config, 'val_dataloader')
    }
    masks = not config.get('model') or _predicts_masks(config.model)
    for path, metric in metrics_of(config, 'val_evaluator'):
        kind = kind_of(metric)
        boxes = any('Coco' in name for name in kinds) and config.get('default_scope') == 'mmdet'
        scenes = any(_is_segmentation(name) for name in kinds)
        if (kind == 'IoUMetric' and boxes) or (kind in ('CocoMetric', 'VOCMetric') and scenes):
            found.error(
                f'{path}.type',
                f'Expected a metric for the labels of {", ".join(sorted(kinds))} but got {kind}. Write type='
                f"'{'CocoMetric' if boxes else 'IoUMetric'}'.",
            )
        values = metric.get('metric')
        if kind == 'CocoMetric' and 'segm' in (values if isinstance(values, list | tuple) else [values]) and not masks:
            found.error(
                f'{path}.metric',
                "Expected metric='bbox' for a student without a mask head but got 'segm' besides. The first validation "
                "would stop the training: leave 'segm' out.",
            )


def _is_segmentation(kind: str) -> bool:
    found = find_type(kind, (DATASETS,), None)
    return any(base.__name__ == 'BaseSegDataset' for base in getattr(found, '__mro__', ()))


def _predicts_masks(model: Any) -> bool:
    """Tell whether a model config speaks of masks, or comes from where that cannot be seen."""
    if isinstance(model, Mapping):
        names = [*map(str, model), str(model.get('type'))]
        if any(word in name for name in names for word in ('mask', 'Mask', 'panoptic', 'Ins', 'SOLO')):
            return True
        return any(
            _predicts_masks(value) for key, value in model.items() if key not in ('teacher', 'teachers', 'pairs')
        )
    return isinstance(model, list | tuple) and any(map(_predicts_masks, model))


def _check_annotations(found: Findings, config: Config, path: str, metric: Mapping[str, Any], loader: str) -> None:
    given = metric.get('ann_file')
    datasets = list(datasets_of(config, loader))
    if not isinstance(given, str) or len(datasets) != 1:
        return
    own, root = datasets[0].get('ann_file'), datasets[0].get('data_root') or ''
    if 'Panoptic' in kind_of(datasets[0]) and 'Panoptic' not in kind_of(metric):
        return  # the same images have a file of instances too
    if not isinstance(own, str) or not own or not isinstance(root, str):
        return
    if not given.replace('//', '/').endswith(own.replace('//', '/').lstrip('./')):
        found.error(
            f'{path}.ann_file',
            f'Expected the annotations of {loader}, {root}{own}, but got {given}. The predictions would be compared '
            'with the labels of other images: give the same file.',
        )
    elif '://' not in given and not metric.get('backend_args') and not Path(given).is_file() and Path(root).is_dir():
        found.error(
            f'{path}.ann_file',
            f'Expected a file of annotations but {given} does not exist.{near_files(given)} Give that of {loader}, '
            f'{root}{own}.',
        )


def reported(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of all metrics of a validation, None where a metric is not known here."""
    given = [_names(metric) for _, metric in metrics_of(config, 'val_evaluator')]
    if not given or None in given:
        return None
    return list(dict.fromkeys(name for names in given for name in names or ()))


def _names(metric: Mapping[str, Any]) -> list[str] | None:
    """Return the names that one metric gives, none where it only writes files."""
    kind = kind_of(metric)
    setting, choices = CHOICES.get(kind, ('', ()))
    values = metric.get(setting) or DEFAULTS.get(kind)
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list | tuple) or kind not in ('CocoMetric', 'IoUMetric') or set(values) - set(choices):
        return None
    if metric.get('format_only') is True:
        return []
    if kind == 'CocoMetric':
        if metric.get('classwise') or any('proposal' in str(value) for value in values):
            return None
        names = [f'{value}_{item}' for value in values for item in metric.get('metric_items') or COCO_ITEMS]
    else:
        names = [name for value in values for name in SEGMENTATION.get(value, ())]
    prefix = metric.get('prefix') or ('coco' if kind == 'CocoMetric' else '')
    return [f'{prefix}/{name}' if prefix else name for name in names]


def _check_items(found: Findings, path: str, metric: Mapping[str, Any]) -> None:
    """The numbers that COCO's metric is asked for are among those that it has."""
    items, known = metric.get('metric_items'), (*COCO_ITEMS, *COCO_RECALL)
    if kind_of(metric) != 'CocoMetric' or items is None:
        return
    if isinstance(items, str):
        found.error(f'{path}.metric_items', f'Expected a list but got {items!r}. Write metric_items=[{items!r}].')
        return
    for item in items if isinstance(items, list | tuple) else ():
        if item not in known:
            found.not_among(f'{path}.metric_items', item, known)


def check_best(found: Findings, config: Config) -> None:
    """What the best checkpoint is chosen by, a training stopped by, or a rate lowered by, is measured."""
    for path, hook in hooks_of(config):
        for key in ('save_best', 'monitor'):
            value = hook.get(key)
            for name in [value] if isinstance(value, str) else value or () if isinstance(value, list | tuple) else ():
                _check_monitor(found, config, f'{path}.{key}', str(name))
    for path, settings in plateaus(config):
        _check_monitor(found, config, f'{path}.monitor', str(settings.get('monitor', 'loss')))


def _check_monitor(found: Findings, config: Config, path: str, name: str) -> None:
    if config.get('val_evaluator') is None:
        found.error(path, f'Expected a validation that measures {name!r} but there is none. Add one or remove the key.')
        return
    names = reported(config)
    if names is None or name in names or (name == 'auto' and names):
        return
    if not names:
        found.error(
            path,
            f'Expected {name!r} from val_evaluator but got format_only=True, which measures nothing. Remove '
            'format_only.',
        )
        return
    same = [known for known in names if known.endswith(name) or known.partition('/')[2] == name]
    near = f' Did you mean {same[0]!r}?' if same else did_you_mean(name, names)
    found.error(path, f'Expected one of {names} but got {name!r}, which is never measured.{near} Choose one.')
