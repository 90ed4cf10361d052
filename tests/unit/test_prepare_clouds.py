"""Inputs of `hbtrain prepare` in Google's storage (an emulator) and on the Hugging Face hub (a stand-in)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import clouds
from tests.unit.test_prepare_remote import same_corpus
from tests.unit.test_readers_ids import mmarco

ROOT = Path(__file__).parents[2]


@pytest.fixture
def google(tmp_path):
    """An emulator with a bucket that holds the folder `raw/` of mMARCO; gives its address."""
    with clouds.google_storage(mmarco(tmp_path / "raw")) as address:
        yield address


def test_a_folder_in_googles_storage(hbtrain, tmp_path, google):
    options = f"?scheme=http&endpoint_override={google}"
    code, _, err = hbtrain("prepare", "mmarco", f"gs://anonymous@bucket/raw{options}", "--output", "remote")
    assert code == 0, err
    assert hbtrain("prepare", "mmarco", "raw", "--output", "local")[0] == 0
    same_corpus(tmp_path / "remote", tmp_path / "local")
    code, _, err = hbtrain("prepare", "mmarco", f"gs://anonymous@bucket/nix{options}", "--output", "none")
    assert code == 2
    assert "gs://anonymous@bucket/nix" in err.strip().splitlines()[-1]


def test_without_credentials_it_is_said_soon(hbtrain, google, tmp_path, monkeypatch):
    """Google's library would try for a quarter of an hour."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a user's own would be
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:1")  # of a machine at Google, which has credentials
    options = f"?scheme=http&endpoint_override={google}&retry_limit_seconds=1"
    code, _, err = hbtrain("prepare", "mmarco", f"gs://bucket/raw{options}", "--output", "none")
    assert code == 2
    assert "access token" in err.strip().splitlines()[-1]


@pytest.fixture
def hub(tmp_path):
    """The stand-in, whose folder `raw/` is mMARCO's; gives its address."""
    with clouds.hub(mmarco(tmp_path / "raw")) as address:
        yield address


def test_a_folder_on_the_hub(hbtrain, tmp_path, hub):
    """In a process of its own: the library reads its settings when it is imported."""

    def prepare(folder):
        return subprocess.run(
            [sys.executable, "-m", "hbtrain.cli.main", "prepare", "mmarco", folder, "--output", "remote"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = prepare("hf://datasets/org/other/raw")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cannot read hf://datasets/org/other/raw: ")
    done = prepare("hf://datasets/org/name/raw")
    assert done.returncode == 0, done.stderr
    assert hbtrain("prepare", "mmarco", "raw", "--output", "local")[0] == 0
    same_corpus(tmp_path / "remote", tmp_path / "local")
