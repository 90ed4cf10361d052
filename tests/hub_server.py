"""A stand-in for the hub: an HTTP server on this machine for repositories of data sets that a test makes, and for
models that are uploaded to it (`tests/hub_uploads.py`).

It answers what huggingface_hub 2.4 and hbtrain ask of a hub: the tree of a revision, page by page; information on a
repository; files and parts of files, of which the larger ones lie elsewhere, as on the hub (`/lfs/`, by a redirect).
It also serves plain files at `/raw/`, can be used as a proxy (it then answers for every host), and does what servers do
when they are not well: see `Hub.fail`.

    with serve() as hub:
        commit = hub.add("owner/name", {"data/en.jsonl": b"..."})
        subprocess.run(..., env={**os.environ, **hub.environment(tmp_path / "hf")})

Within pytest, the fixture `hub` gives one to which this process is directed as well.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_uploads import Uploads
from tests.web import serving

LFS_BYTES = 1000
"""Files of so many bytes or more lie elsewhere, as with git-lfs; the true hub does so from 10 MB on, or by name."""
BLOCK = 1 << 14


@dataclass
class Repository:
    """A dataset repository at one commit."""

    files: dict[str, bytes]
    commit: str
    gated: bool


@dataclass
class Failure:
    """What goes wrong with requests whose path holds `path`, so many times."""

    path: str
    method: str = "GET"
    times: int = 1
    status: int | None = None  # answered instead
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the answer, after which the connection breaks
    hold_after: int | None = None  # bytes of the answer, after which nothing comes until `release` is set
    wrong: bool = False  # one bit of the file is another
    ignores_range: bool = False  # the whole file is sent where a part was asked for
    release: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)  # set when it happens


class Hub:
    """The repositories and files that are served, what went wrong, and what was asked for."""

    def __init__(self):
        self.url = ""  # address of the server
        self.token = "hf_accepted"  # with which gated repositories are open
        self.page = 1000  # entries of a tree in one answer
        self.next = ""  # address of the server of the next page; empty: this one
        self.repositories: dict[str, Repository] = {}
        self.plain: dict[str, bytes] = {}  # {path below /raw/: content}
        self.models = {}  # {ORG/NAME: `hub_uploads.Model`}
        self.writable = {"my-team"}  # users and organisations to whose repositories the token may write
        self.uploaded: dict[str, bytes] = {}  # {SHA-256: large file that was sent}
        self.failures: list[Failure] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.sent: Counter[str] = Counter()  # {path of a file: bytes of its content that were sent}

    def add(self, name, files, gated=False):
        """Make a dataset repository of {path: content}; gives its commit."""
        lines = [f"{path} {hashlib.sha256(content).hexdigest()}" for path, content in sorted(files.items())]
        commit = hashlib.sha1("\n".join([name, *lines]).encode()).hexdigest()
        self.repositories[name] = Repository(dict(files), commit, gated)
        return commit

    def fail(self, path, **how):
        """Let requests whose path holds `path` go wrong; see `Failure`."""
        failure = Failure(path, **how)
        self.failures.append(failure)
        return failure

    def asked(self, part, method=None):
        """The paths of requests that hold `part`."""
        return [path for how, path, _ in self.requests if part in path and method in (None, how)]

    def environment(self, home):
        """Variables with which a process uses this hub, and keeps what it fetches below the folder `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}


def page(*sources, **values):
    """What a page of the catalogue says of a set in two languages, whose own spelling is xx and yy."""
    return {
        "name": "tiny",
        "title": "A set of tests",
        "purposes": ["benchmark"],
        "form": "beir",
        "languages": {"de": "xx", "fr": "yy"},
        "sources": list(sources),
        "licence": {"name": "cc0-1.0", "page": "https://example.org/licence"},
        "citation": "none",
        "checked": "by a test",
    } | values


@contextmanager
def serve():
    """A hub without repositories, which ends with the block."""
    hub = Hub()

    class Handler(_Handler):
        about = hub

    with serving(Handler) as url:
        hub.url = url
        try:
            yield hub
        finally:
            for failure in hub.failures:
                failure.release.set()


def direct(hub, home, monkeypatch):
    """Let this process use the hub, too; huggingface_hub, which reads its environment once, may be imported already."""
    from huggingface_hub import constants

    for name, value in hub.environment(home).items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)


class _Handler(Uploads, BaseHTTPRequestHandler):
    about: Hub
    protocol_version = "HTTP/1.1"

    def handle(self):
        with suppress(ConnectionError):  # whoever asked has gone
            super().handle()

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.take()

    def do_PUT(self):
        self.take()

    def answer(self):
        hub = self.about
        address = urlsplit(self.path)  # whole, with its host, where this server is used as a proxy
        path = unquote(address.path)
        hub.requests.append((self.command, path, {name.title(): value for name, value in self.headers.items()}))
        failure = self.failing(path)
        if failure is not None and failure.status is not None:
            failure.reached.set()
            return self.reply(failure.status, b"", failure.headers)
        if path.startswith("/raw/"):
            content = hub.plain.get(path.removeprefix("/raw/"))
            return self.reply(404) if content is None else self.file(path, content, {"ETag": '"plain"'}, failure)
        if match := re.fullmatch(r"/lfs/(.+)/([0-9a-f]{64})", path):
            content = next(x for x in hub.repositories[match[1]].files.values() if sha256(x) == match[2])
            return self.file(path, content, {"ETag": '"elsewhere"'}, failure)
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(tree|revision)/([^/]+))?", path):
            return self.about_repository(match[1], match[2], match[3] or "main", parse_qs(address.query))
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*match.groups(), failure)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        return self.reply(404) if match is None else self.about_model(match[1])

    def failing(self, path):
        """What goes wrong with this request, once less from now on; None: nothing."""
        for failure in self.about.failures:
            if failure.path in path and failure.method == self.command and failure.times:
                failure.times -= 1
                return failure
        return None

    def opened(self, name, revision):
        """The repository at a revision; None if the request was refused."""
        hub = self.about
        repository = hub.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None:
            self.reply(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif token not in ("", hub.token, "hf_stranger"):
            self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository.gated and token != hub.token:
            self.reply(
                403 if token else 401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            )
        elif revision not in (repository.commit, "main"):
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def about_repository(self, name, what, revision, query):
        # Trees and information of gated repositories are open to all; only their files are not.
        repository = self.about.repositories.get(name)
        if repository is None or not repository.gated:
            repository = self.opened(name, revision)
        if repository is None:
            return None
        if what != "tree":
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            about = {"id": name, "sha": repository.commit, "siblings": siblings, "gated": repository.gated}
            return self.reply(200, json.dumps(about | {"private": False, "tags": [], "downloads": 0, "likes": 0}))
        entries = [entry(path, content) for path, content in sorted(repository.files.items())]
        folders = {path.rsplit("/", 1)[0] for path in repository.files if "/" in path}
        entries += [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.about.page < len(entries):
            following = f"/api/datasets/{name}/tree/{revision}?recursive=True&cursor={start + self.about.page}"
            headers["Link"] = f'<{self.about.next or self.about.url}{following}>; rel="next"'
        return self.reply(200, json.dumps(entries[start : start + self.about.page]), headers)

    def resolve(self, name, revision, path, failure):
        repository = self.opened(name, revision)
        if repository is None:
            return None
        headers = {"X-Repo-Commit": repository.commit}
        content = repository.files.get(path)
        if content is None:
            return self.reply(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        if len(content) < LFS_BYTES:
            return self.file(self.path, content, headers | {"ETag": f'"{git_blob(content)}"'}, failure)
        digest = sha256(content)
        headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content)), "ETag": f'"{digest}"'}
        elsewhere = self.about.url.replace("127.0.0.1", "localhost")  # another host, as on the hub
        return self.reply(302, b"", headers | {"Location": f"{elsewhere}/lfs/{name}/{digest}"})

    def file(self, path, content, headers, failure):
        """Send a file, or the part of it that was asked for."""
        size = len(content)
        if failure is not None and failure.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, end, status = 0, size, 200
        if asked and not (failure is not None and failure.ignores_range):
            first, end, status = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else size, size), 206
            if first >= size:
                return self.reply(416, b"", {"Content-Range": f"bytes */{size}"})
            headers = headers | {"Content-Range": f"bytes {first}-{end - 1}/{size}"}
        self.begin(status, end - first, headers | {"Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return None
        stop = (
            min((at for at in (failure.cut_after, failure.hold_after) if at is not None), default=None)
            if failure
            else None
        )
        done = 0
        while done < end - first:
            if stop is not None and done >= stop:
                self.wfile.flush()
                failure.reached.set()
                if failure.cut_after is not None:
                    self.connection.shutdown(2)
                    self.close_connection = True
                    return None
                failure.release.wait(60)
                stop = None
            until = min(done + BLOCK, end - first, *([] if stop is None else [stop]))
            try:
                self.wfile.write(content[first + done : first + until])
            except OSError:
                self.close_connection = True
                return None
            self.about.sent[unquote(urlsplit(path).path)] += until - done
            done = until
        return None

    def reply(self, status, body=b"", headers=None):
        body = body.encode() if isinstance(body, str) else body
        self.begin(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status, length, headers):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()


def entry(path, content):
    """A file as the tree of a repository lists it."""
    if len(content) < LFS_BYTES:
        return {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return {"type": "file", "path": path, "size": len(content), "oid": git_blob(lfs["oid"].encode()), "lfs": lfs}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
