"""Weights that are known by an id: Hugging Face repositories and timm's models, through the hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.folders import FILES, INDEXES, choose, listing
from kdplugin.weights.reading.sharded import read_index

PREFIX = re.compile(r'^hf[-_]hub:')
REPOSITORY = re.compile(r'^[\w.-]+/[\w.-]+(@[\w./-]+)?$')
TIMEOUT = 10.0
"""Seconds to wait for the hub's answer before the cache has to do."""


def is_id(text: str) -> bool:
    """Tell whether a text that names no file can be an id: 'org/name', 'hf-hub:org/name', or a model of timm."""
    if PREFIX.match(text):
        return True
    path_like = text.startswith(('.', '~', '/')) or '\\' in text or '://' in text or text.endswith((*FILES, *INDEXES))
    return bool(text) and not path_like and (text.count('/') == 0 or bool(REPOSITORY.match(text)))


def fetch(identifier: str, subfolder: str | None = None) -> Path:
    """Return the local file of an id's weights, or the index of its shards, downloaded where they are not in the cache.

    Args:
        identifier: 'org/name' or 'hf-hub:org/name', with '@revision' if wanted; with 'hf-hub:' also a file in it
            ('hf-hub:org/name/model.pth'); a model of timm ('vit_base_patch16_224', 'timm/resnet50').
        subfolder: a folder in the repository.

    Raises:
        CheckpointError: the id is unknown, holds no weights or several, or the hub cannot be reached and the cache
            does not hold it.
    """
    text, file = PREFIX.sub('', identifier), None
    owner, _, model = text.rpartition('/')
    if not PREFIX.match(identifier) and owner in ('', 'timm'):
        text, file = _timm_repository(model, owner)
    text, _, revision = text.partition('@')
    if text.count('/') > 1:
        text, file = '/'.join(text.split('/')[:2]), '/'.join(text.split('/')[2:])
    repository = _Repository(text, revision or None, identifier)
    names = repository.names(subfolder or '')
    chosen = file or choose(names, f'the repository {text}', subfolder)
    local = repository.file(chosen)
    if chosen.endswith(INDEXES):
        folder = chosen.rpartition('/')[0]
        for shard in sorted(set(read_index(local).values())):
            repository.file(f'{folder}/{shard}'.lstrip('/'))
    return local


class _Repository:
    """A repository of the Hugging Face hub, or what the cache holds of it where the hub cannot be asked."""

    def __init__(self, repository: str, revision: str | None, asked: str) -> None:
        try:
            import huggingface_hub
            import huggingface_hub.constants
            import huggingface_hub.errors
        except ImportError:
            raise CheckpointError(
                f'Expected a file or a folder but got {asked!r}, and ids need huggingface_hub. '
                'Run pip install huggingface_hub, or check the path.'
            ) from None
        self._hub = huggingface_hub
        self._repository, self._revision, self._asked = repository, revision, asked
        self._cached: Path | None = None

    def names(self, subfolder: str) -> list[str]:
        """Return the names of its files; of a cached one, those that ``listing`` finds."""
        try:
            info = self._hub.HfApi().model_info(self._repository, revision=self._revision, timeout=TIMEOUT)
        except Exception as error:  # its own errors, those of its HTTP library, OSError and ValueError
            self._cached = self._snapshot()
            if self._cached is None:
                raise self._unknown(error) from None
            return listing(self._cached, subfolder)
        return [sibling.rfilename for sibling in info.siblings or ()]

    def file(self, name: str) -> Path:
        """Return the local path of one file."""
        if self._cached is not None:
            return self._cached / name
        try:
            return Path(self._hub.hf_hub_download(self._repository, name, revision=self._revision))
        except Exception as error:
            raise self._unknown(error) from None

    def _snapshot(self) -> Path | None:
        """Return the cached folder of the revision."""
        try:
            repositories = self._hub.scan_cache_dir(self._hub.constants.HF_HUB_CACHE).repos
        except (OSError, ValueError, self._hub.errors.CacheNotFound):
            return None
        for repository in repositories:
            if repository.repo_id == self._repository and repository.repo_type == 'model':
                wanted = self._revision or 'main'
                for revision in repository.revisions:
                    if wanted in revision.refs or revision.commit_hash == wanted:
                        return Path(revision.snapshot_path)
        return None

    def _unknown(self, error: Exception) -> CheckpointError:
        errors = self._hub.errors
        cure = 'Check the id, or give a local file or folder.'
        if isinstance(error, errors.GatedRepoError):
            why, cure = 'its owner asks for registration', 'Accept its terms on huggingface.co and run hf auth login.'
        elif isinstance(error, errors.RevisionNotFoundError):
            why, cure = f'it has no revision {self._revision!r}', 'Correct what stands after the @.'
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = 'the hub knows no public model of that name'
        elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            why = f'it has no such file ({str(error).splitlines()[0][:120]})'
        elif isinstance(error, errors.HFValidationError):
            why = 'that is not a valid id'
        else:
            why = f'the hub cannot be reached ({type(error).__name__}) and the cache does not hold it'
            cure = 'Download it where there is a network, or give a local file or folder.'
        return CheckpointError(
            f'Expected a file, a folder or the id of a model but {self._asked!r} is not here, and as a Hugging Face '
            f'repository ({self._repository}) it cannot be had: {why}. {cure}'
        )


def _timm_repository(model: str, owner: str) -> tuple[str, str | None]:
    """Return the repository, and the file in it if it is an unusual one, of timm's pretrained weights for a model."""
    try:
        from timm.models import get_pretrained_cfg, list_models, list_pretrained
    except ImportError:
        if owner:
            return f'{owner}/{model}', None
        raise CheckpointError(
            f'Expected a file or a folder but got {model!r}, and models of timm need timm. '
            'Run pip install timm, or check the path.'
        ) from None
    try:
        found = get_pretrained_cfg(model)
    except RuntimeError:  # timm knows the model, but not the tag after its dot
        found = None
    if found is not None and found.hf_hub_id:
        return found.hf_hub_id, found.hf_hub_filename
    if owner:
        return f'{owner}/{model}', None
    if found is not None or model in list_models():
        raise CheckpointError(
            f'Expected weights on the hub for the timm model {model!r} but timm knows none'
            f'{f", only {found.url}" if found is not None and found.url else ""}. Give a local file.'
        )
    raise CheckpointError(
        f'Expected a file, a folder, the id of a repository (org/name) or a model of timm but got {model!r}.'
        f'{did_you_mean(model, [*list_models(), *list_pretrained()])} Correct it.'
    )
