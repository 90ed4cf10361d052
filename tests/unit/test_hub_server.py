"""The stand-in of the hub is one to huggingface_hub itself."""

from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

SMALL, LARGE = b"a line\n", bytes(range(256)) * 40


def test_a_snapshot_is_what_the_repository_holds(hub):
    hub.page = 2
    commit = hub.add("owner/name", {"README.md": SMALL, "data/en.bin": LARGE, "data/de.bin": LARGE[::-1], "x": b""})
    folder = snapshot_download("owner/name", repo_type="dataset", revision=commit)
    path = hf_hub_download("owner/name", "data/de.bin", repo_type="dataset", revision="main")
    assert Path(path).read_bytes() == LARGE[::-1]
    assert path.startswith(folder)
    assert len(hub.asked("/tree/")) == 3


@pytest.mark.parametrize(
    ("name", "revision", "error"),
    [
        ("owner/gated", "main", GatedRepoError),
        ("owner/other", "main", RepositoryNotFoundError),
        ("owner/open", "f" * 40, RevisionNotFoundError),
    ],
)
def test_refusals_are_those_of_the_hub(hub, name, revision, error):
    hub.add("owner/gated", {"a.bin": LARGE}, gated=True)
    hub.add("owner/open", {"a.bin": LARGE})
    with pytest.raises(error):
        snapshot_download(name, repo_type="dataset", revision=revision)
