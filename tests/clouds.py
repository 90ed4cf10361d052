"""Stand-ins for Google's storage (an emulator) and the Hugging Face hub, which serve a folder of this machine."""

import hashlib
import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from urllib.parse import unquote

import requests

from tests.ports import free_port
from tests.web import serving

EMULATOR = """
import sys
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@contextmanager
def google_storage(folder):
    """An emulator with `bucket`, which holds the folder under its name; gives its address."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", EMULATOR, str(port)], stderr=subprocess.DEVNULL) as emulator:
        try:
            wait_for(port, emulator)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    put(f"127.0.0.1:{port}", str(path.relative_to(folder.parent)), path.read_bytes())
            yield f"127.0.0.1:{port}"
        finally:
            emulator.kill()


def put(address, name, content):
    """Make or replace an object in the emulator's bucket."""
    requests.post(
        f"http://{address}/upload/storage/v1/b/bucket/o",
        params={"uploadType": "media", "name": name},
        headers={"Content-Type": "application/octet-stream"},
        data=content,
        timeout=60,
    ).raise_for_status()


def wait_for(port, process):
    """Wait until the process takes connections."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the emulator has ended")


@contextmanager
def hub(folder):
    """The dataset `org/name`, as far as it is asked for to list and to read its files: the folder, under its name."""
    api = "/api/datasets/org/name"
    files = {str(x.relative_to(folder.parent)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}

    def listed(inside, recursive):
        start = f"{inside}/" if inside else ""
        names = [name for name in files if name.startswith(start)]
        folders = {
            str(above) for name in names for above in PurePosixPath(name).parents if str(above).startswith(start)
        }
        entries = [{"type": "directory", "path": name, "oid": "cd" * 20} for name in sorted(folders - {"."})]
        for name in names:
            oid = hashlib.sha1(files[name]).hexdigest()
            entries.append({"type": "file", "path": name, "size": len(files[name]), "oid": oid})
        return [x for x in entries if recursive or "/" not in x["path"].removeprefix(start)]

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = unquote(self.path).partition("?")
            if path == api:
                self.tell(json.dumps({"id": "org/name", "sha": "0" * 40}).encode())
            elif path.startswith(f"{api}/tree/main"):
                inside = path.removeprefix(f"{api}/tree/main").strip("/")
                self.tell(json.dumps(listed(inside, "recursive=true" in query)).encode())
            elif path.startswith("/datasets/org/name/resolve/main/"):
                self.tell(files[path.removeprefix("/datasets/org/name/resolve/main/")])
            else:
                self.send_error(404)

        def tell(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with serving(Hub) as address:
        yield address
