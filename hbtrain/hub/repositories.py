"""Dataset repositories of the hub: what they hold, and where huggingface_hub's cache has it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from hbtrain.hub.data_set import Repository


def read_tree(source: Repository) -> dict[str, tuple[str, int, str]]:
    """{path: (address, bytes, digest)} of all files of a repository at its commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    tree = api.list_repo_tree(source.repository, recursive=True, revision=source.revision, repo_type="dataset")
    base = f"{api.endpoint}/datasets/{source.repository}/resolve/{source.revision}"
    return {
        entry.path: (
            f"{base}/{quote(entry.path)}",
            entry.size if entry.lfs is None else entry.lfs.size,
            f"git:{entry.blob_id}" if entry.lfs is None else f"sha256:{entry.lfs.sha256}",
        )
        for entry in tree
        if isinstance(entry, RepoFile)
    }


def repository_folder(source: Repository) -> Path:
    """The folder of a repository in huggingface_hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{source.repository.replace('/', '--')}"


def snapshot_path(source: Repository, path: str) -> Path:
    """Where a file of a repository is in huggingface_hub's cache."""
    return repository_folder(source) / "snapshots" / source.revision / path
