"""Package metadata. The tool settings are in pyproject.toml, the tested versions in requirements/."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split("'")[1]
    for line in (ROOT / 'kdplugin' / '__init__.py').read_text().splitlines()
    if line.startswith('__version__')
)

setup(
    name='kdplugin',
    version=VERSION,
    description='Knowledge distillation for detection and segmentation as a plugin for the mmengine Runner',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['kdplugin', 'kdplugin.*']),
    package_data={
        'kdplugin': [
            # Where mim and mmengine look for what comes with a package; in a checkout these are links.
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/tools/*.py',
            '.mim/tools/*.sh',
        ],
        'kdplugin.datasets': ['prompts.json'],
    },
    exclude_package_data={'kdplugin': ['.mim/tools/setup_env.sh', '.mim/tools/write_docs.py']},  # of the checkout
    python_requires='>=3.10',  # the syntax used; 3.10 to 3.12 are what torch 2.8 and both mm* stacks support
    install_requires=[
        'torch>=2.6',  # torch.serialization.safe_globals accepts (object, name) pairs from 2.6 on
        'torchvision>=0.21',  # the release made for torch 2.6
        'numpy>=1.26',  # the oldest line that torch 2.6 is built with
        'safetensors>=0.4',  # load_file with a device
        'scikit-learn>=1.3',  # the digits of the embedded data
        'scipy>=1.11',  # image filters of the embedded data
        'pillow>=10',
        'pycocotools>=2.0.7',  # builds with numpy 2
        'matplotlib>=3.8',
        'rich>=13',
        'timm>=1.0.8',  # MobileNetV4
    ],
    extras_require={
        # The mm* packages are extras: both distributions install the same import names, and mmcv is compiled.
        'onedl': [
            'onedl-mmengine>=0.10.8',  # the first release that loads its own checkpoints with torch 2.6
            'onedl-mmcv>=2.3',
            'onedl-mmdetection>=3.4',
            'onedl-mmsegmentation>=1.3',
        ],
        'openmmlab': [
            'mmengine>=0.10.4',  # 0.10.3 and older import a pkg_resources that setuptools 80 has changed
            'mmcv>=2.1,<2.2',  # mmdet 3.3.0 and mmseg 1.2.2 refuse 2.2
            'mmdet>=3.3,<4',
            'mmsegmentation>=1.2.2,<2',
            'ftfy',  # mmseg 1.2.2 imports it without declaring it
            'regex',
        ],
        'wan': ['diffusers>=0.40', 'transformers>=4.51'],  # the video teacher, its student and its text encoder
        'test': ['pytest>=8'],
        'dev': ['ruff>=0.12', 'mypy>=1.15'],
    },
)
