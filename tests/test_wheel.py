"""What the wheel holds, and that it does its work where the repository is not."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from kdplugin.model_index import COLLECTIONS

ROOT = Path(__file__).parents[1]
OF_THE_CHECKOUT = {'setup_env.sh', 'write_docs.py'}
PROJECT = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy, so that nothing is left behind in the repository."""
    source = tmp_path_factory.mktemp('source') / 'kdplugin'
    source.mkdir()
    for name in PROJECT:
        shutil.copy(ROOT / name, source)
    for name in ('configs', 'tools', 'kdplugin'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    out = source.parent / 'out'
    code = f'from setuptools import build_meta; build_meta.build_wheel({str(out)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, capture_output=True, text=True, check=True)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='module')
def site(wheel: Path) -> Path:
    """Return a folder with the content of the wheel."""
    folder = wheel.parents[1] / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def names(folder: Path, *endings: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.suffix in endings}


def test_every_module_is_in_it(site: Path) -> None:
    modules = {name for name in names(site / 'kdplugin', '.py') if not name.startswith('.mim')}
    assert modules == {name for name in names(ROOT / 'kdplugin', '.py') if not name.startswith('.mim')}
    assert (site / 'kdplugin' / 'datasets' / 'prompts.json').is_file()


def test_every_config_and_the_list_of_recipes_is_in_it_as_it_is_here(site: Path) -> None:
    files = site / 'kdplugin' / '.mim'
    expected = names(ROOT / 'configs', '.py', '.yml')
    assert names(files / 'configs', '.py', '.yml') == expected
    assert {f'{folder}/metafile.yml' for folder in COLLECTIONS} < expected
    for name in expected:
        assert (files / 'configs' / name).read_bytes() == (ROOT / 'configs' / name).read_bytes(), name
    assert (files / 'model-index.yml').read_bytes() == (ROOT / 'model-index.yml').read_bytes()


def test_the_tools_are_in_it_but_those_of_the_checkout(site: Path) -> None:
    expected = {path.name for path in (ROOT / 'tools').iterdir() if path.suffix in ('.py', '.sh')} - OF_THE_CHECKOUT
    assert {path.name for path in (site / 'kdplugin' / '.mim' / 'tools').iterdir()} == expected
    assert {'train.py', 'verify_config.py', 'demo.py', 'dist_train.sh'} < expected


def test_shell_scripts_stay_executable(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    scripts = [mode for name, mode in modes.items() if name.endswith('.sh')]
    assert len(scripts) == 3
    assert all(mode & stat.S_IXUSR for mode in scripts)


def test_nothing_in_it_is_a_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert not [entry for entry in archive.infolist() if stat.S_ISLNK(entry.external_attr >> 16)]


def test_what_a_config_inherits_or_teaches_with_is_in_it(site: Path) -> None:
    configs = site / 'kdplugin' / '.mim' / 'configs'
    missing = []
    for path in configs.rglob('*.py'):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
                bases = [base for base in ast.literal_eval(node.value) if '::' not in base]
                missing += [(path.name, base) for base in bases if not (path.parent / base).is_file()]
        named = re.findall(r"'kdplugin::([^']+)'", text)
        missing += [(path.name, name) for name in named if not (configs / name).is_file()]
    assert missing == []


def test_teachers_of_the_package_are_named_by_it_so_that_they_are_found_from_anywhere() -> None:
    """All but the two checks on real data, whose data a benchmark of the repository prepares."""
    relative = {path for path in (ROOT / 'configs').rglob('*.py') if re.search(r"cfg='configs/", path.read_text())}
    assert {path.parent.name for path in relative} == {'real_data'}


def test_what_it_requires_is_what_it_imports(site: Path) -> None:
    """Every package that a module imports at its top comes with the wheel, with an mm* stack or with the extra wan."""
    metadata = Parser().parsestr(next(site.glob('*.dist-info/METADATA')).read_text())
    required = {re.split(r'[<>=; ]', line)[0].lower() for line in metadata.get_all('Requires-Dist') or []}
    packages = {'PIL': 'pillow', 'sklearn': 'scikit-learn', 'mmseg': 'mmsegmentation', 'tokenizers': 'transformers'}
    imported: set[str] = set()
    for path in [*(site / 'kdplugin').glob('[!.]*/**/*.py'), *(site / 'kdplugin').glob('*.py')]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split('.')[0])
    others = {packages.get(name, name) for name in imported - sys.stdlib_module_names - {'kdplugin'}}
    assert {'torch', 'mmengine', 'timm'} < others
    assert others - required == set()


def test_a_tool_of_it_runs_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    """With the wheel before the repository's own package in the path of modules."""
    code = (
        'import kdplugin, sys; from kdplugin.config_files import parse; from kdplugin.package_files import CONFIGS;'
        "config = parse('kdplugin::quickstart/kd_digits.py');"
        'teacher = parse(config.model.teacher.cfg);'
        "print(kdplugin.__file__, CONFIGS, config.filename, teacher.filename, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(site), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = done.stdout.strip().splitlines()[-4:]
    assert all(Path(path).resolve().is_relative_to(site.resolve()) for path in paths), paths
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_installed_in_an_environment_of_its_own_it_trains_and_tests_the_quickstart(wheel: Path, tmp_path: Path) -> None:
    """Two steps. The environment is new; what the wheel requires is read from this one's folder of packages."""
    environment = tmp_path / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(environment)], check=True)
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    packages = environment / 'lib' / version / 'site-packages'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    import torch

    (packages / 'required.pth').write_text(f'{Path(torch.__file__).parents[1]}\n')  # its own .pth files are not read
    place = tmp_path / 'empty'
    place.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}

    def kdplugin(*arguments: str) -> str:
        done = subprocess.run(
            [environment / 'bin' / 'python', '-m', 'kdplugin', *arguments], cwd=place,
            env={**variables, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    kdplugin('make_digit_scenes', 'data/digit_scenes', '--train', '40', '--val', '8', '--size', '96')
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
             'train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=8']  # fmt: skip
    kdplugin('train', 'kdplugin::quickstart/teacher_digits.py', '--cfg-options', *short)
    teacher = 'model.teacher.checkpoint=work_dirs/teacher_digits/iter_2.pth'
    assert 'no errors' in kdplugin(
        'verify_config', 'kdplugin::quickstart/kd_digits.py', '--static', '--cfg-options', *short, teacher
    )
    kdplugin('train', 'kdplugin::quickstart/kd_digits.py', '--cfg-options', *short, teacher)
    said = kdplugin('test', 'kdplugin::quickstart/kd_digits.py', 'work_dirs/kd_digits/iter_2.pth')
    assert re.search(r'^mIoU \d', said, re.MULTILINE)
    assert (place / 'work_dirs' / 'kd_digits' / 'iter_2.pth').is_file()
