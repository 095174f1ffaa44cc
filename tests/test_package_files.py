from __future__ import annotations

from pathlib import Path

import pytest

from kdplugin import package_files
from kdplugin.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_in_a_checkout_the_package_links_to_what_stands_at_its_root() -> None:
    assert (ROOT / 'configs').resolve() == package_files.CONFIGS
    assert (ROOT / 'tools').resolve() == package_files.TOOLS
    assert (package_files.FILES / 'model-index.yml').resolve() == (ROOT / 'model-index.yml').resolve()


def test_tools_are_known_by_their_names() -> None:
    assert {'train', 'test', 'verify_config', 'demo', 'dist_train'} < set(package_files.tool_names())
    assert package_files.tool_file('verify_config') == package_files.TOOLS / 'verify_config.py'
    assert package_files.tool_file('dist_train') == package_files.TOOLS / 'dist_train.sh'


@pytest.mark.parametrize('name', ['trian', '../tools/train', 'train.py', ''])
def test_a_name_that_is_no_tool(name: str) -> None:
    with pytest.raises(ConfigError, match=r'Expected the name of a tool but got .* The tools are: .*, train, '):
        package_files.tool_file(name)


def test_the_nearest_tool_is_named() -> None:
    with pytest.raises(ConfigError, match=r"but got 'verify'\. Did you mean 'verify_config'"):
        package_files.tool_file('verify')
