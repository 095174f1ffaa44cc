"""Draw the embedded data: tools/make_digit_scenes.py OUT --train 1000 --val 200 --size 160 --seed 0."""

from __future__ import annotations

import argparse
import sys

from kdplugin.datasets.digit_drawing import SceneSettings
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.reports.cli import run_tool


def parse_args() -> argparse.Namespace:
    default = SceneSettings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('out', metavar='OUT', help='folder to make')
    parser.add_argument('--train', type=int, default=1000, help='number of training scenes')
    parser.add_argument('--val', type=int, default=200, help='number of validation scenes')
    parser.add_argument('--size', type=int, default=160, help='side of the square scenes in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of scenes and of the split of digits')
    for flag, kind, text in (
        ('digits', int, 'digits per scene'),
        ('digit-size', float, 'side of a digit in pixels'),
        ('contrast', float, 'brightness of a stroke against its background, 0 to 1'),
        ('texture', float, 'strength of the background noise'),
    ):
        value = getattr(default, flag.replace('-', '_'))
        parser.add_argument(f'--{flag}', type=kind, nargs=2, metavar=('MIN', 'MAX'), default=value, help=text)
    parser.add_argument('--overwrite', action='store_true', help='replace scenes made with other arguments')
    return parser.parse_args()


def main() -> int:
    args = parse_args()

    def body() -> int:
        settings = SceneSettings(
            digits=tuple(args.digits),
            digit_size=tuple(args.digit_size),
            contrast=tuple(args.contrast),
            texture=tuple(args.texture),
        )
        print(
            make_digit_scenes(
                args.out,
                train=args.train,
                val=args.val,
                size=args.size,
                seed=args.seed,
                settings=settings,
                overwrite=args.overwrite,
            )
        )
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
