"""Rename a torchvision fcn_resnet50 checkpoint for mmseg: tools/convert_teacher.py IN OUT."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kdplugin.reports.cli import run_tool
from kdplugin.weights.layouts.torchvision_fcn import fcn_from_torchvision
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of, write_checkpoint


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('source', metavar='IN', help="torchvision's weights, .pth or .safetensors")
    parser.add_argument('target', metavar='OUT', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle IN without restrictions, which can run any program',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)

    def convert() -> int:
        checkpoint = read_checkpoint(args.source, trust_checkpoint=args.trust_checkpoint)
        weights = fcn_from_torchvision(state_dict_of(checkpoint, args.source))
        write_checkpoint({'state_dict': weights}, args.target)
        print(f'{args.target}: {len(weights)} of {len(weights)} tensors renamed')
        return 0

    return run_tool(convert)


if __name__ == '__main__':
    sys.exit(main())
