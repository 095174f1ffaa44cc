"""Ids are resolved through the hub's own client, here against a small hub on this machine, and through its cache."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.hub import fetch, is_id
from kdplugin.weights.reading.source import open_source

SHA = 'c' * 40
WEIGHTS = safetensors.torch.save({'blocks.10.w': torch.ones(2), 'blocks.2.w': torch.zeros(3)})
INDEX = json.dumps({'weight_map': {'a': 'm-00001-of-00002.safetensors', 'b': 'm-00002-of-00002.safetensors'}}).encode()
SHARDS = {
    'transformer/m-00001-of-00002.safetensors': safetensors.torch.save({'a': torch.ones(2)}),
    'transformer/m-00002-of-00002.safetensors': safetensors.torch.save({'b': torch.ones(3)}),
}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    'org/plain': {'model.safetensors': WEIGHTS, 'pytorch_model.bin': b'not fetched', 'README.md': b'x'},
    'org/files': {'one.safetensors': WEIGHTS, 'two.safetensors': WEIGHTS},
    'org/empty': {'README.md': b'x'},
    'org/wan': {
        'model_index.json': b'{}',
        'transformer/m.safetensors.index.json': INDEX,
        **SHARDS,
        'vae/model.safetensors': WEIGHTS,
    },
    'timm/resnet18.a1_in1k': {'model.safetensors': WEIGHTS},
    'timm/resnet18.tv_in1k': {'model.safetensors': WEIGHTS},
    'org/gated': {},
}


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does, for the two kinds of request that reading weights makes."""

    asked: list[str] = []

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def answer(self, status: int, body: bytes = b'', **headers: str) -> None:
        self.send_response(status)
        for key, value in {'Content-Length': str(len(body)), **headers}.items():
            self.send_header(key.replace('_', '-'), value)
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = self.path.split('?')[0].strip('/').split('/')
        Hub.asked.append('/'.join(parts))
        if parts[:2] == ['api', 'models']:
            return self.describe('/'.join(parts[2:4]), parts[5] if len(parts) > 5 else 'main')
        return self.resolve('/'.join(parts[:2]), '/'.join(parts[4:]))

    do_HEAD = do_GET

    def describe(self, repository: str, revision: str) -> None:
        if repository == 'org/gated':
            return self.answer(403, X_Error_Code='GatedRepo')
        if repository not in REPOSITORIES:
            return self.answer(404, X_Error_Code='RepoNotFound')
        if revision not in ('main', 'v1', SHA):
            return self.answer(404, X_Error_Code='RevisionNotFound')
        files = [{'rfilename': name} for name in REPOSITORIES[repository]]
        return self.answer(200, json.dumps({'id': repository, 'sha': SHA, 'siblings': files}).encode())

    def resolve(self, repository: str, name: str) -> None:
        body = REPOSITORIES.get(repository, {}).get(name)
        if body is None:
            return self.answer(404, X_Error_Code='EntryNotFound', X_Repo_Commit=SHA)
        return self.answer(200, body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=SHA)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty cache; nothing can be reached beyond this machine."""
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    for name, value in {'ENDPOINT': 'http://127.0.0.1:9', 'HF_HUB_OFFLINE': False}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    return tmp_path / 'cache'


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Run a hub; returns the paths that were asked for."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    template = address + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(Hub, 'asked', [])
    yield Hub.asked
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(hub: list[str]) -> set[str]:
    return {path.split('/', 4)[4] for path in hub if '/resolve/' in path}


@pytest.mark.parametrize('identifier', ['org/plain', 'hf-hub:org/plain', 'hf_hub:org/plain', 'org/plain@v1'])
def test_an_id_is_downloaded_once_and_alone(hub: list[str], cache: Path, identifier: str) -> None:
    path = fetch(identifier)
    assert path.read_bytes() == WEIGHTS
    assert cache in path.parents
    assert fetched(hub) == {'model.safetensors'}
    source = open_source(identifier)
    assert (source.name, list(source)) == (identifier, ['blocks.2.w', 'blocks.10.w'])


def test_shards_of_a_component_come_with_their_index(hub: list[str]) -> None:
    source = open_source('org/wan', subfolder='transformer')
    assert {key: source.shape(key) for key in source} == {'a': (2,), 'b': (3,)}
    assert fetched(hub) == {'transformer/m.safetensors.index.json', *SHARDS}


def test_a_file_in_a_repository(hub: list[str]) -> None:
    assert list(open_source('hf-hub:org/files/two.safetensors')) == ['blocks.2.w', 'blocks.10.w']
    assert fetched(hub) == {'two.safetensors'}
    with pytest.raises(CheckpointError, match=r"'hf-hub:org/files/three\.pth' is not here.*it has no such file"):
        fetch('hf-hub:org/files/three.pth')


@pytest.mark.parametrize(
    ('identifier', 'subfolder', 'message'),
    [
        ('org/none', None, r"'org/none' is not here, and as .* \(org/none\) it cannot be had: the hub knows no public"),
        ('org/plain@v2', None, r"it has no revision 'v2'\. Correct what stands after the @"),
        ('org/gated', None, r'its owner asks for registration\. Accept its terms on huggingface\.co and run hf auth'),
        ('org/-x', None, r'that is not a valid id\. Check the id, or give a local file or folder'),
        ('org/empty', None, r'Expected weights in the repository org/empty but got README\.md\. Give a folder'),
        ('org/files', None, r'in the repository org/files but got 2: one\.safetensors, two\.safetensors\.'),
        ('org/wan', None, r'diffusers folder the repository org/wan .*: transformer, vae hold weights\.'),
        ('org/wan', 'vea', r"subfolder of the repository org/wan but got 'vea'\. Did you mean 'vae'"),
    ],
)  # fmt: skip
def test_what_cannot_be_had(hub: list[str], identifier: str, subfolder: str | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        fetch(identifier, subfolder)
    assert fetched(hub) == set()


# Without a network


@pytest.mark.parametrize('identifier', ['org/plain', 'org/plain@v1'])
def test_the_cache_serves_offline(hub: list[str], identifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(identifier)
    hub.clear()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert fetch(identifier) == path
    assert hub == []


def test_the_cache_serves_a_component_offline(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fetch('org/wan', 'transformer')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert list(open_source('org/wan', subfolder='transformer')) == ['a', 'b']
    with pytest.raises(CheckpointError, match=r"subfolder of the repository org/wan but got 'vae'"):
        fetch('org/wan', 'vae')


def test_a_shard_that_is_not_in_the_cache(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch('org/wan', 'transformer')
    (path.parent / 'm-00002-of-00002.safetensors').unlink()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(CheckpointError, match=r'but 1 are missing: m-00002-of-00002\.safetensors\. Copy them'):
        open_source('org/wan', subfolder='transformer')


@pytest.mark.parametrize('switched_off', [True, False])
@pytest.mark.parametrize('cached', [True, False], ids=['another is cached', 'no cache'])
def test_an_id_that_cannot_be_had_offline_is_an_error(
    cache: Path, switched_off: bool, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never random initialisation, never silence. The second kind: nobody answers."""
    if cached:
        snapshot = cache / 'models--org--other' / 'snapshots' / SHA
        snapshot.mkdir(parents=True)
        (snapshot / 'model.safetensors').write_bytes(WEIGHTS)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', switched_off)
    why = 'OfflineModeIsEnabled' if switched_off else 'Connect'
    message = (
        rf"'org/plain' is not here.*the hub cannot be reached \({why}\w*\) and the cache does not hold it\. Download"
    )
    with pytest.raises(CheckpointError, match=message):
        fetch('org/plain')


def test_another_revision_in_the_cache_does_not_do(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fetch('org/plain@v1')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(CheckpointError, match='the cache does not hold it'):
        fetch('org/plain@main')
    assert fetch(f'org/plain@{SHA}').read_bytes() == WEIGHTS


# timm


@pytest.mark.parametrize(
    ('identifier', 'repository'),
    [
        ('resnet18', 'timm/resnet18.a1_in1k'),
        ('resnet18.tv_in1k', 'timm/resnet18.tv_in1k'),
        ('timm/resnet18', 'timm/resnet18.a1_in1k'),
        ('timm/resnet18.tv_in1k', 'timm/resnet18.tv_in1k'),
    ],
)
def test_models_of_timm(hub: list[str], identifier: str, repository: str) -> None:
    fetch(identifier)
    assert {path.split('/resolve/')[0] for path in hub if '/resolve/' in path} == {repository}


def test_timm_knows_the_same_repository() -> None:
    from timm.models import get_pretrained_cfg

    assert get_pretrained_cfg('resnet18').hf_hub_id == 'timm/resnet18.a1_in1k'


def test_a_file_that_timm_names(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.models
    from timm.models import PretrainedCfg

    config = PretrainedCfg(hf_hub_id='org/files', hf_hub_filename='two.safetensors')
    monkeypatch.setattr(timm.models, 'get_pretrained_cfg', lambda name: config)
    fetch('anything')
    assert fetched(hub) == {'two.safetensors'}


@pytest.mark.parametrize('name', ['resnet81', 'resnet18.tv_in2k', 'work_dir'])
def test_a_name_that_timm_does_not_know(cache: Path, name: str) -> None:
    suggestion = r"Did you mean '" + name[:6] if name.startswith('resnet') else 'Correct it'
    message = rf"the id of a repository \(org/name\) or a model of timm but got '{name}'\. ?{suggestion}"
    with pytest.raises(CheckpointError, match=message):
        fetch(name)


def test_a_repository_of_timm_that_its_code_does_not_know(hub: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"'timm/no_such' is not here.*\(timm/no_such\).*the hub knows no public"):
        fetch('timm/no_such')


@pytest.mark.parametrize(('address', 'known'), [('https://x.org/a.pth', r', only https://x\.org/a\.pth'), ('', '')])
def test_a_model_whose_weights_are_not_on_the_hub(
    cache: Path, address: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm.models
    from timm.models import PretrainedCfg

    monkeypatch.setattr(timm.models, 'get_pretrained_cfg', lambda name: PretrainedCfg(url=address))
    message = rf"on the hub for the timm model 'resnet18' but timm knows none{known}\. Give a local file\."
    with pytest.raises(CheckpointError, match=message):
        fetch('resnet18')


@pytest.mark.parametrize(
    ('missing', 'identifier', 'message'),
    [
        (
            'timm.models',
            'resnet18',
            r"file or a folder but got 'resnet18', and models of timm need timm\. Run pip install",
        ),
        (
            'huggingface_hub',
            'org/plain',
            r"got 'org/plain', and ids need huggingface_hub\. Run pip install huggingface_hub",
        ),
    ],
)
def test_libraries_that_are_not_there(
    cache: Path, missing: str, identifier: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CheckpointError, match=message):
        fetch(identifier)


def test_a_repository_of_timm_needs_no_timm(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'timm.models', None)
    assert fetch('timm/resnet18.tv_in1k').read_bytes() == WEIGHTS


# What may be an id


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('org/name', True),
        ('org/name@refs/pr/1', True),
        ('hf-hub:org/name', True),
        ('hf_hub:org/name/a.pth', True),
        ('resnet18', True),
        ('resnet18.tv_in1k', True),
        ('Wan-AI/Wan2.2-T2V-A14B-Diffusers', True),
        ('', False),
        ('a/b/c', False),
        ('./name', False),
        ('../org/name', False),
        ('~/name', False),
        ('/org/name', False),
        ('org\\name', False),
        ('https://x.org/a', False),
        ('org/name.pth', False),
        ('name.safetensors', False),
        ('org/model.safetensors.index.json', False),
        ('org/na me', False),
    ],
)
def test_what_may_be_an_id(text: str, expected: bool) -> None:
    assert is_id(text) is expected
