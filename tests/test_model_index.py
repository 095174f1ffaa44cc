from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.config.utils import _get_cfg_metainfo
from mmengine.fileio import load

from kdplugin import model_index

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'docs' / 'results'


def models() -> dict[str, dict[str, Any]]:
    """Return the recipes of the list as it is in the repository, by name."""
    found = [model for file in load(ROOT / 'model-index.yml')['Import'] for model in load(ROOT / file)['Models']]
    named = {model['Name']: model for model in found}
    assert len(named) == len(found)
    return named


def bases(path: Path) -> list[Path]:
    """Return the files of ours that a config inherits."""
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_'
    ]
    return [(path.parent / base).resolve() for base in (values[0] if values else []) if '::' not in base]


def test_it_is_up_to_date_with_configs_and_results() -> None:
    """A measurement that changed: run tools/write_docs.py."""
    for path, text in model_index.written(ROOT).items():
        assert path.read_text() == text, path


def test_every_config_is_a_recipe_or_inherited_by_one() -> None:
    files = {path.resolve() for path in (ROOT / 'configs').glob('[!_]*/*.py')}
    listed = {(ROOT / model['Config']).resolve() for model in models().values()}
    shared = {path for path in files if path.stem in model_index.SHARED}
    assert listed | shared == files
    assert not listed & shared
    assert shared <= {base for path in files for base in bases(path)}
    assert len(shared) == len(model_index.SHARED)


def test_numbers_are_those_of_the_results() -> None:
    """Means over seeds, worked out here once more for a few recipes of each file."""
    found = {
        name: next(iter(model['Results'][0]['Metrics'].values()))
        for name, model in models().items()
        if 'Results' in model
    }
    quickstart = json.loads((RESULTS / 'quickstart.json').read_text())
    real = {run['data']: run for run in json.loads((RESULTS / 'real_data.json').read_text())['runs']}
    orion = json.loads((RESULTS / 'orion_digits.json').read_text())
    starts = json.loads((RESULTS / 'projection_start.json').read_text())['runs']
    svd = [run['miou'] for run in starts if run['method'] == 'svd' and run['layers'] == 'uniform']
    expected = {
        'teacher_digits': [quickstart['teacher']],
        'kd_digits': [seed['kd'] for seed in quickstart['seeds']],
        'baseline_bccd': real['bccd']['baseline'],
        'kd_dubai': real['dubai']['kd'],
        'student_nokd_eva-tiny_digits': orion['no_kd'],
        'projected_mit_digits': svd,
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(sum(values) / len(values), abs=0.0051), name
        assert models()[name]['Metadata']['Seeds'] == len(values)


def test_results_belong_to_recipes_and_the_rest_has_none() -> None:
    measured = model_index.measured(ROOT)
    assert measured.keys() <= models().keys()
    assert {name for name, model in models().items() if 'Results' in model} == measured.keys()


def test_the_dataset_of_a_recipe_is_in_its_name() -> None:
    data = {name: model['Metadata']['Training Data'] for name, model in models().items()}
    assert data['kd_bccd'] == 'BCCD'
    assert data['teacher_eva-tiny_digits'] == 'Digit scenes'
    assert data['orion_student_eva-l_half_b2d'] == 'Bench2Drive'
    assert data['kd_fcn-r50_mbv3s-aspp_40k_voc12-512x512'] == 'PASCAL VOC 2012'


def test_mmengine_reads_a_recipe_of_the_list() -> None:
    found = _get_cfg_metainfo(str(ROOT / 'kdplugin'), 'quickstart/kd_digits.py')
    assert found['Name'] == 'kd_digits'
    assert found['Results'][0]['Task'] == 'Semantic Segmentation'


def test_what_is_not_measured_has_no_results(tmp_path: Path) -> None:
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    text = model_index.written(tmp_path)[tmp_path / 'configs/quickstart/metafile.yml']
    assert 'kd_digits' in text
    assert 'Results' not in text
