"""Pairs of real models with hand-written truths, one file per family: they judge what a mapper finds by itself."""

from __future__ import annotations

from importlib import import_module

from mapping_pairs.base import Pair

FAMILIES = (
    'segmentation',
    'vit',
    'eva',
    'detection',
    'swin',
    'detr',
    'depth',
    'cnn',
    'language',
    'tokens',
    'authors',
    'encoders',
    'hierarchies',
    'decoders',
    'queries',
    'official',
    'texts',
    'backwards',
    'doubtful',
    'further',
)


def all_pairs() -> dict[str, Pair]:
    """Return every pair by name, in the order of the families."""
    pairs = [pair for family in FAMILIES for pair in import_module(f'mapping_pairs.{family}').PAIRS]
    return {pair.name: pair for pair in pairs}
