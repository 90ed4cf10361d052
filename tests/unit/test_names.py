"""Names from manifests, catalogues and listings never leave their folder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.source import Source
from hbtrain.errors import DataError, ModelError
from hbtrain.modeling.model_files import check_encoder_files, read_json
from hbtrain.storage import RemotePath, fetch, inside
from hbtrain.training.checkpoint_files import Manifest, damage, local_checkpoint
from tests.prepared_samples import scratch

PARTS = st.sampled_from(["..", ".", "", "a", "b.json", "...", "~", "%2e%2e", "\u2025", "a\\..", "\0", " "])
NAMES = st.one_of(st.text(max_size=8), st.lists(PARTS, max_size=6).map("/".join))
LEADING_OUT = ["../x", "a/../../x", "/etc/passwd", "..", "a/..", "", ".", "x\0y"]


@given(NAMES)
@example("//x")
@example("./../x")
def test_a_name_is_below_its_folder_or_refused(name):
    folder = Path("/store/run")
    try:
        found = inside(folder, name)
    except ValueError:
        assert {"..", ""} & set(name.split("/")) or "\0" in name or not name.strip("./"), "nothing else is refused"
        return
    assert os.path.normpath(found).startswith("/store/run/")
    assert inside(RemotePath("bucket", "run"), name) == RemotePath("bucket", f"run/{name}")


@pytest.mark.parametrize("name", LEADING_OUT)
def test_none_of_these(name):
    with pytest.raises(ValueError, match="leads out of its folder"):
        inside(Path("folder"), name)


@given(NAMES)
def test_a_manifest_of_a_checkpoint_reads_and_writes_in_its_folder_only(name):
    with scratch() as root:
        folder = Path(root) / "runs" / "step-00000001-a"
        folder.mkdir(parents=True)
        for outside in (Path(root) / "x", Path(root) / "runs" / "x"):
            outside.write_bytes(b"")
        empty = "cae66941d9efbd404e4d88758ea67670"
        content = {"step": 1, "rank": 0, "world_size": 1, "files": {name: [0, empty]}}
        (folder / Manifest.name(0)).write_text(json.dumps(content))
        with local_checkpoint(folder, 0, 1, 1, "test-") as (_, wrong):
            assert wrong, "there is no such file, or its name is refused"
        assert damage(folder, 0, 1) == wrong


def test_a_checkpoint_in_a_bucket_writes_nothing_beside_the_copy(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = {"step": 1, "rank": 0, "world_size": 1, "files": {"../evil": [4, "0" * 32]}}
    bucket.put("step-00000001-a/manifest-00000.json", json.dumps(content).encode())
    bucket.put("evil", b"evil")
    with local_checkpoint(RemotePath.parse(f"{bucket.uri}/step-00000001-a"), 0, 1, 1, "test-") as (_, wrong):
        assert wrong == "manifest-00000.json cannot be read: the name '../evil' leads out of its folder"
        assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_listing(tmp_path, monkeypatch, name):
    source = RemotePath("bucket", "folder")
    monkeypatch.setattr(RemotePath, "is_file", lambda _: False)
    monkeypatch.setattr(RemotePath, "files", lambda _: {"good": (1, 0), name: (1, 0)})
    with pytest.raises(OSError, match="leads out of its folder"):
        fetch(source, tmp_path / "to")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_a_corpus(tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "corpus"
    folder.mkdir()
    manifest = {"prepared": 1, "files": {"../secret": {"bytes": 1, "sha256": "0" * 64}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest.json is damaged"):
        Source.from_prepared(folder, "corpus")


@pytest.mark.usefixtures("cache")
def test_a_language_of_a_manifest(write_source, rows, cache):
    path = str(write_source(rows(3)))
    ParallelCorpus.open([path])
    (manifest,) = cache.glob("sources/*/manifest.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"languages": ["de", "en", "../../ru"]}))
    with pytest.raises(DataError, match=r"its manifest names a language '../../ru'"):
        ParallelCorpus.open([path])


def test_modules_of_a_model(tmp_path):
    """Outside the folder, nothing was checked for pickles."""
    model = tmp_path / "model"
    model.mkdir()
    np.save(tmp_path / "pytorch_model.bin", np.zeros(1))
    (model / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": ".."}]))
    with pytest.raises(ModelError, match="modules.json: the name '../.*' leads out of its folder"):
        check_encoder_files(str(model), True)
    with pytest.raises(ModelError, match="leads out of its folder"):
        read_json(str(model), "../secret.json")
