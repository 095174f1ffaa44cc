#!/usr/bin/env python
"""Invent a tiny Bench2Drive, and a checkpoint in ORION's layout: tools/make_b2d_fixture.py OUT [--checkpoint FILE]."""

from __future__ import annotations

import argparse
import sys

from kdplugin.datasets.bench2drive_fixture import write_fixture
from kdplugin.reports.cli import run_tool

TINY = dict(img_size=128, embed_dim=64, depth=3, num_heads=4, window_size=4, pretrain_img_size=64)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write invented infos, images and dialogues in the layout of Bench2Drive and Chat-B2D.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', metavar='OUT', help='folder to make')
    parser.add_argument('--frames', type=int, default=4, help='frames of each split')
    parser.add_argument('--size', type=int, nargs=2, default=[90, 160], metavar=('H', 'W'), help='of the images')
    parser.add_argument('--seed', type=int, default=0, help='of everything')
    parser.add_argument('--checkpoint', metavar='FILE', help="write invented weights in ORION's layout, too (1.2 GB)")
    parser.add_argument('--tiny', action='store_true', help='a checkpoint with a tiny backbone')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def body() -> int:
        size = (arguments.size[0], arguments.size[1])
        print(write_fixture(arguments.out, frames=arguments.frames, size=size, seed=arguments.seed))
        if arguments.checkpoint:
            from kdplugin.models.detectors.orion_file import write_orion_checkpoint

            settings = TINY if arguments.tiny else {}
            print(write_orion_checkpoint(arguments.checkpoint, arguments.seed, **settings))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
