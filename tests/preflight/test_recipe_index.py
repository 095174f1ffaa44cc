from __future__ import annotations

from mmengine.config import Config, utils

import kdplugin.registry  # noqa: F401 - tells mmengine where mmseg is
from kdplugin.preflight.recipe_index import read_list, recipes_listed_once

RECIPE = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'


def test_the_same_recipe_is_found_and_the_lists_are_read_once() -> None:
    plain, before = Config._get_cfg_path(RECIPE, '')[0], utils.load
    with recipes_listed_once():
        assert Config._get_cfg_path(RECIPE, '')[0] == plain
        read = read_list.cache_info().misses
        assert Config._get_cfg_path(RECIPE, '')[0] == plain
        assert read_list.cache_info().misses == read > 0
    assert utils.load is before
