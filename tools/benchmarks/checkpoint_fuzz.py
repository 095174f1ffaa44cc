#!/usr/bin/env python
"""Damaged and hostile checkpoints for the reader: tools/benchmarks/checkpoint_fuzz.py --cases 2000.

Each case has to give a dict or a CheckpointError, within bounds of memory and time. An audit hook of Python notes every
program that is started, all code that is executed and every file that is opened for writing while it reads; there must
be none.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from measuring import write_json

from kdplugin.errors import CheckpointError
from kdplugin.reports.cli import run_tool
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.seal import seal

RESULTS = Path('docs') / 'results' / 'checkpoint_fuzz.json'
WATCHED = (
    'os.system',
    'os.exec',
    'os.spawn',
    'os.posix_spawn',
    'os.fork',
    'subprocess.Popen',
    'exec',
    'socket.connect',
)
MEMORY, SECONDS = 6 << 30, 20
WEIGHTS = {'conv.weight': torch.arange(60.0).reshape(5, 12), 'conv.bias': torch.zeros(5), 'step': torch.tensor(3)}
CONTENT = {
    'state_dict': WEIGHTS,
    'optimizer': {'state': {0: {'momentum_buffer': torch.ones(5)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]},
    'meta': {'iter': 4, 'cfg': 'model = dict()', 'dataset_meta': {'classes': ('a', 'b')}},
    'numbers': [np.float64(0.5), np.arange(4)],
}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def hostile(marker: Path) -> list[Any]:
    """Return objects that leave a file, or do worse, where their pickles run."""
    code = f'open({str(marker)!r}, "w")'
    return [
        Call(os.system, f'touch {marker}'), Call(eval, code), Call(exec, code), Call(os.popen, f'touch {marker}'),
        Call(open, str(marker), 'w'), Call(os.mkdir, str(marker)), Call(__import__, 'this'), Call(sys.exit, 3),
        Call(np.load, str(marker)), Call(torch.load, str(marker)), Call(os.kill, os.getpid(), 9),
        Call(getattr, dict, '__subclasses__'), Call(bytearray, 1 << 33), Call(torch.zeros, 1 << 33),
    ]  # fmt: skip


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def sound() -> dict[str, bytes]:
    """Return whole files by their names, one of each format."""
    plain = saved(CONTENT)
    return {
        'plain.pth': plain,
        'sealed.pth': b''.join(seal(plain)),
        'legacy.pth': saved(CONTENT, _use_new_zipfile_serialization=False),
        'weights.safetensors': safetensors.torch.save(WEIGHTS),
    }


def repacked(archive: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the pickle in a zip file and leave the zip file whole, with right checksums of its own."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith('data.pkl') else content)
    return out.getvalue()


def broken(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flip bits, cut, overwrite, insert, or join with another file."""
    data = bytearray(content)
    place = draw.randrange(len(data))
    kind = draw.randrange(6)
    if kind == 0:
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place : place + 16] = draw.randbytes(draw.randint(1, 16))
    elif kind == 3:
        data[place:place] = draw.randbytes(draw.randint(1, 64))
    elif kind == 4:
        del data[place : place + draw.randint(1, 64)]
    else:
        data[place:] = other[draw.randrange(len(other)) :]
    return bytes(data)


def case(number: int, seed: int, files: Mapping[str, bytes], evil: list[Any]) -> tuple[str, str, bytes]:
    """Return the kind, the file name and the bytes of one case."""
    draw = random.Random(f'{seed} {number}')  # noqa: S311
    name = draw.choice(sorted(files))
    other = files[draw.choice(sorted(files))]
    kind = draw.choice(('broken', 'broken', 'pickle', 'spliced', 'hostile'))
    if kind == 'broken':
        return kind, name, broken(files[name], other, draw)
    if kind == 'hostile':
        one = draw.choice(evil)
        place: Any = draw.choice(({'x': one}, one, {'state_dict': {**WEIGHTS, 'x': [one]}}, {'meta': {1: (one, one)}}))
        return kind, 'a.pth', saved(place, _use_new_zipfile_serialization=draw.random() < 0.7)
    bomb = pickle.dumps(draw.choice(evil), protocol=2)

    def change(content: bytes) -> bytes:
        if kind == 'pickle':
            return broken(content, other, draw)
        cut = draw.randrange(len(content))
        return draw.choice((content[:cut] + bomb, bomb[:-1] + content[2:], content[:cut] + bomb[2:-1] + content[cut:]))

    return kind, 'a.pth', repacked(files['plain.pth'], change)


class Watch:
    """Note what Python's audit hook reports while a file is read."""

    def __init__(self) -> None:
        self.on, self.seen = False, set[str]()
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and (
            event in WATCHED or (event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'))
        ):
            self.seen.add(f'{event} {args[0]!r:.80}')


def outcome(path: Path, watch: Watch) -> tuple[str, str]:
    """Read a file; return 'read', 'refused' or what went wrong, and the detail."""
    watch.seen.clear()
    watch.on = True
    try:
        content = read_checkpoint(path)
        result = ('read', '') if isinstance(content, dict) else ('wrong type', type(content).__name__)
    except CheckpointError as error:
        result = 'refused', str(error)
    except BaseException as error:
        result = 'another exception', f'{type(error).__name__}: {error}'
    finally:
        watch.on = False
    return ('executed', str(sorted(watch.seen))) if watch.seen else result


def work(folder: str, seed: int, first: int, last: int, answer: Connection) -> None:
    """Read cases one after the other; a case that ends the process is the one after the last answer."""
    torch.set_num_threads(1)
    limit = MEMORY + int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.chdir(folder)
    files, evil, watch = sound(), hostile(Path(folder, 'executed')), Watch()
    for name, content in files.items():  # what is imported at first use is imported now
        Path(name).write_bytes(content)
        outcome(Path(name), watch)
    for number in range(first, last):
        kind, name, content = case(number, seed, files, evil)
        path = Path(f'case{Path(name).suffix}')
        path.write_bytes(content)
        signal.alarm(SECONDS)
        result = outcome(path, watch)
        signal.alarm(0)
        if os.path.exists('executed'):
            result = 'executed', 'a file was left'
        answer.send((number, kind, *result))


def fuzz(cases: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the counts of outcomes by kind of damage, and every case that went wrong."""
    counts: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    number, context = 0, get_context('fork')
    while number < cases:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(str(folder), seed, number, cases, theirs))
        process.start()
        theirs.close()
        while number < cases:
            try:
                _, kind, result, detail = ours.recv()
            except EOFError:
                process.join()
                kind, result, detail = 'unknown', 'crashed', f'the process ended with {process.exitcode}'
            counts.setdefault(kind, Counter())[result] += 1
            if result not in ('read', 'refused'):
                wrong.append({'case': number, 'kind': kind, 'outcome': result, 'detail': detail[:300]})
            number += 1
            if result == 'crashed':
                break
        process.join()
    total = sum(counts.values(), Counter())
    return {
        'seed': seed, 'cases': cases, 'read': total['read'], 'refused': total['refused'], 'wrong': wrong,
        'by_kind': {kind: dict(count) for kind, count in sorted(counts.items())},
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Read damaged and hostile checkpoints.')
    parser.add_argument('--cases', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)

    def body() -> int:
        with tempfile.TemporaryDirectory() as folder:
            results = fuzz(arguments.cases, arguments.seed, Path(folder))
        write_json(arguments.out, results)
        print({key: value for key, value in results.items() if key != 'wrong'}, len(results['wrong']), 'wrong')
        return int(bool(results['wrong']))

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
