#!/usr/bin/env python
"""How many faults tools/verify_config.py finds, and how many it sees where there are none.

``python tools/benchmarks/preflight_recall.py`` writes docs/results/preflight_recall.json. It runs on the CPU in a
folder of its own with small stand-ins for the data that configs name; the configs themselves are as they ship. A fault
counts as found if a finding of its level names its path, what is wrong, and the right cure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import torch  # noqa: E402
from measuring import write_json  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from preflight_cases.clean import check_clean, try_clean  # noqa: E402
from preflight_cases.damage import damaged, damaged_text, everything_in  # noqa: E402
from preflight_cases.fault_list import DATA, FILES, KEYS  # noqa: E402
from preflight_cases.fault_list_learning import SILENT  # noqa: E402
from preflight_cases.fault_list_more import LEARNING, PARTS, RUNNING, VIDEO  # noqa: E402
from preflight_cases.fault_list_schedules import SCHEDULES  # noqa: E402
from preflight_cases.fault_list_settings import SETTINGS  # noqa: E402
from preflight_cases.fault_list_training import DISTILLATION, MORE, TRAINING  # noqa: E402
from preflight_cases.faults import Fault  # noqa: E402
from preflight_cases.files import STUDENT, make_files, save_teacher  # noqa: E402

from kdplugin import launch  # noqa: E402
from kdplugin.datasets.prompts import read_prompts  # noqa: E402
from kdplugin.errors import KDPluginError  # noqa: E402
from kdplugin.models.generators.tiny_pipeline import make_tiny_pipeline  # noqa: E402
from kdplugin.preflight.findings import Findings  # noqa: E402
from kdplugin.preflight.recipe_index import recipes_listed_once  # noqa: E402
from kdplugin.preflight.verify import verify  # noqa: E402

FAULTS = (
    *KEYS,
    *FILES,
    *DATA,
    *DISTILLATION,
    *TRAINING,
    *MORE,
    *PARTS,
    *LEARNING,
    *RUNNING,
    *VIDEO,
    *SILENT,
    *SCHEDULES,
    *SETTINGS,
)
RESULT = ROOT / 'docs' / 'results' / 'preflight_recall.json'
SYNTAX = {
    'a bracket that is not closed': ('model = dict(\n', 'Correct the line'),
    'a base file that does not exist': ("_base_ = ['./gone.py']\n", 'Check its _base_ files'),
    'a name that is not defined': ("_base_ = ['./gfl_student.py']\nmodel = dict(neck=dict(num_outs=outs))\n", 'names'),
    'an import of what is not there': (
        "_base_ = ['./gfl_student.py']\ncustom_imports = dict(imports=['gone_package'])\n", 'Check its _base_ files'
    ),
}  # fmt: skip
"""Faults by which a config does not even parse."""


def prepare(folder: Path) -> None:
    """Make the stand-ins, and go there."""
    make_files(folder)
    os.chdir(folder)
    for name, classes in (('gfl_teacher_5', 5), ('gfl_teacher_order', 10)):
        text = STUDENT.format(width=16, neck=24).replace('num_classes=10', f'num_classes={classes}')
        if name.endswith('order'):
            text += (
                "names = ('nine', 'eight', 'seven', 'six', 'five', 'four', 'three', 'two', 'one', 'zero')\n"
                'train_dataloader = dict(dataset=dict(metainfo=dict(classes=names)))\n'
            )
        Path(f'{name}.py').write_text(text)
    save_teacher('gfl_teacher.py', Path('gfl_teacher.pth'))
    save_teacher('gfl_teacher_5.py', Path('gfl_teacher_5.pth'))
    save_teacher('gfl_student.py', Path('student_weights.pth'))
    weights = torch.load('student_weights.pth', weights_only=True)
    torch.save({**weights, 'optimizer': {}, 'meta': {'epoch': 12, 'iter': 600}}, 'student_done.pth')
    save_teacher('configs/quickstart/teacher_digits.py', Path('work_dirs/teacher_digits/iter_800.pth'))
    make_tiny_pipeline('work_dirs/wan_tiny', prompts=read_prompts(), steps=0)


def said(found: Findings, fault: Fault) -> bool:
    """Tell whether the findings name a fault: its level, its path, what is wrong, and the cure."""
    return any(
        one.level == fault.level
        and one.where.startswith(fault.where)
        and re.search(_any_of(fault.says), one.message)
        and re.search(_any_of(fault.cure), one.message)
        for one in found
    )


def _any_of(text: str) -> str:
    return '|'.join(re.escape(part) for part in text.split('|'))


def try_faults(log: Callable[[str], None], only: str = '') -> list[dict[str, Any]]:
    """Put each fault into its config and check that."""
    rows = []
    for fault in FAULTS:
        if only not in fault.name:
            continue
        config = launch.read_config(fault.base)
        fault.put_into(config)
        started = time.perf_counter()
        found = verify(config, static=not fault.full, gpus=1 if 'batch' in fault.name else None)
        rows.append(
            dict(
                kind=fault.name, config=fault.base, mode='dry run' if fault.full else 'static',
                found=said(found, fault), broken=found.broken, seconds=round(time.perf_counter() - started, 2),
            )
        )  # fmt: skip
        if not rows[-1]['found']:
            shown = '\n    '.join(f'{one.level} {one.where}: {one.message}' for one in found if one.level != 'note')
            log(f'NOT FOUND {fault.name}: {shown or "nothing"} (broken: {found.broken})')
    return rows


def try_syntax() -> list[dict[str, Any]]:
    """Configs that do not parse end in one message with a cure."""
    rows = []
    for name, (text, cure) in SYNTAX.items():
        Path('broken.py').write_text(text)
        try:
            launch.read_config('broken.py')
            message = ''
        except KDPluginError as error:
            message = str(error)
        rows.append(dict(kind=name, config='broken.py', mode='syntax', found=cure in message, broken=[], seconds=0.0))
    return rows


def try_damage(cases: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Damage configs and check what is left of them: a report or one message, and nothing else."""
    chance, before = random.Random(0), everything_in(Path())  # noqa: S311
    bases = {name: launch.read_config(name) for name in ('gfl_kd.py', 'configs/quickstart/kd_digits.py')}
    crashes, silent, outcomes = [], [], {'clean': 0, 'errors': 0, 'unread': 0, 'not checked': 0}
    for number in range(cases):
        name = chance.choice(list(bases))
        case = Path(f'fuzz_{number}.py')
        try:
            if number % 4 == 0:
                case.write_bytes(damaged_text(Path(name).resolve().read_text(), chance))
                config = launch.read_config(case)
            else:
                config = damaged(bases[name], chance)
            found = verify(config, static=number % 40 != 1)
            outcomes['errors' if found.errors else 'not checked' if found.broken else 'clean'] += 1
            silent += [number] if any(not one.message for one in found) else []
        except KDPluginError as error:
            outcomes['unread'] += 1
            silent += [number] if not str(error) else []
        except Exception as error:
            crashes.append(f'{number}: {type(error).__name__}: {error}'[:300])
            log(f'CRASH {crashes[-1]}')
        finally:
            case.unlink(missing_ok=True)
    written = sorted(name for name, _ in everything_in(Path()) - before if '__pycache__' not in name)
    return dict(cases=cases, crashes=crashes, silent=silent, outcomes=outcomes, files_written=written)


def timing(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Measure both modes on the largest configs that ship, images as large as their recipes make them."""
    rows = []
    for name in names:
        for static in (True, False):
            row = check_clean(name, static=static)
            rows.append({key: row[key] for key in ('config', 'mode', 'seconds')} | {'errors': len(row['errors'])})
    return rows


LARGEST = (
    'configs/detection/pkd_mask-rcnn-swin-s_retinanet-r50_2x_coco.py',
    'configs/detection/mgd_cascade-mask-rcnn-x101-dcn_mask-rcnn-r50_2x_coco.py',
    'configs/detection/cwd_gfl-r101_gfl-r50_1x_coco.py',
    'configs/segmentation/cwd_upernet-timm-convnextv2-tiny_pspnet-r18_80k_cityscapes-512x1024.py',
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', help='faults whose name contains this; writes nothing')
    parser.add_argument('--damaged', type=int, default=2000, help='damaged configs to try')
    parser.add_argument('--dry-runs', type=int, default=100, help='clean configs that are run too, at most')
    parser.add_argument('--no-hosts', action='store_true', help='leave out the recipes of mmdet and mmseg')
    parser.add_argument('--no-timing', action='store_true', help='leave out the time on the largest configs')
    parser.add_argument('--out', type=Path, default=RESULT)
    arguments = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))
    out = arguments.out.resolve()

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, recipes_listed_once():
        prepare(Path(folder) / 'run')
        rows = try_faults(log, arguments.only)
        if arguments.only:
            print(json.dumps(rows, indent=1))
            return 0
        rows += try_syntax()
        clean = try_clean(log, arguments.dry_runs, not arguments.no_hosts)
        damage = try_damage(arguments.damaged, log)
        times = [] if arguments.no_timing else timing(LARGEST)
        os.chdir(ROOT)
    write_json(out, summary(rows, clean, damage, times))
    return 0


def summary(
    rows: list[dict[str, Any]], clean: dict[str, Any], damage: dict[str, Any], times: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what is kept of a run."""
    alarms = [
        dict(config=row['config'], mode=row['mode'], errors=row['errors']) for row in clean['rows'] if row['errors']
    ]
    host_alarms = [
        dict(config=row['config'], errors=row['errors'])
        for row in clean['hosts']
        if row['errors'] and 'unread' not in row
    ]
    return dict(
        kinds=len(rows),
        found=sum(row['found'] for row in rows),
        clean_configs=len(clean['own']) + len(clean['generated']),
        false_alarms=len(alarms),
        how='python tools/benchmarks/preflight_recall.py on a CPU; stand-ins for data and own teachers',
        threads=torch.get_num_threads(),
        missed=[row['kind'] for row in rows if not row['found']],
        checks_broken=sorted({name for row in (*rows, *clean['rows']) for name in row['broken']}),
        clean=dict(
            shipped=len(clean['own']), generated=len(clean['generated']),
            static=sum(row['mode'] == 'static' for row in clean['rows']),
            dry_runs=sum(row['mode'] == 'dry run' for row in clean['rows']), alarms=alarms,
            seconds={
                mode: dict(sorted(
                    ((row['config'], row['seconds']) for row in clean['rows'] if row['mode'] == mode),
                    key=lambda pair: -pair[1],
                )[:10])
                for mode in ('static', 'dry run')
            },
            with_absent_files={row['config']: len(row['absent']) for row in clean['rows'] if row['absent']},
            warnings=sorted({warning for row in clean['rows'] for warning in row['warnings']})[:40],
        ),
        recipes_of_mmdet_and_mmseg=dict(
            configs=len(clean['hosts']), unread=sum('unread' in row for row in clean['hosts']), errors=host_alarms,
            seconds=round(sum(row['seconds'] for row in clean['hosts']), 1),
        ),
        damaged=damage,
        seconds=times,
        faults=rows,
    )  # fmt: skip


if __name__ == '__main__':
    sys.exit(main())
