"""Inputs of `hbtrain prepare` in Google's storage (an emulator) and on the Hugging Face hub (a stand-in)."""

import json
import os
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from tests.ports import free_port
from tests.unit.test_prepare_remote import same_corpus
from tests.unit.test_readers_ids import mmarco
from tests.web import serving

ROOT = Path(__file__).parents[2]


EMULATOR = """
import sys
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@pytest.fixture
def google(tmp_path):
    """An emulator with a bucket that holds the folder `raw/` of mMARCO; gives its address."""
    mmarco(tmp_path / "raw")
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", EMULATOR, str(port)], stderr=subprocess.DEVNULL) as emulator:
        try:
            wait_for(port, emulator)
            for path in sorted((tmp_path / "raw").rglob("*.tsv")):
                requests.post(
                    f"http://127.0.0.1:{port}/upload/storage/v1/b/bucket/o",
                    params={"uploadType": "media", "name": str(path.relative_to(tmp_path))},
                    headers={"Content-Type": "text/plain"},
                    data=path.read_bytes(),
                    timeout=60,
                ).raise_for_status()
            yield f"127.0.0.1:{port}"
        finally:
            emulator.kill()


def wait_for(port, process):
    """Wait until the process takes connections."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the emulator has ended")


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


class Hub(BaseHTTPRequestHandler):
    """The dataset `org/name`, as far as it is asked for to list and to read its files."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    API = "/api/datasets/org/name"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == self.API:
            self.tell(json.dumps({"id": "org/name", "sha": "0" * 40}).encode())
        elif path.startswith(f"{self.API}/tree/main"):
            inside = path.removeprefix(f"{self.API}/tree/main").strip("/")
            found = [
                {"type": "file", "path": name, "size": len(raw), "oid": "ab" * 20}
                for name, raw in self.files.items()
                if name.startswith(inside)
            ]
            self.tell(json.dumps(found).encode())
        elif path.startswith("/datasets/org/name/resolve/main/"):
            self.tell(self.files[path.removeprefix("/datasets/org/name/resolve/main/")])
        else:
            self.send_error(404)

    def tell(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """The stand-in, whose folder `raw/` is mMARCO's; gives its address."""
    mmarco(tmp_path / "raw")
    Hub.files = {str(x.relative_to(tmp_path)): x.read_bytes() for x in (tmp_path / "raw").rglob("*.tsv")}
    with serving(Hub) as address:
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
