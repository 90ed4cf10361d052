"""What the stand-in for the hub answers to uploads of models: repositories are made, files sent, commits made.

A file goes the way of huggingface_hub 2.4 without Xet: `preupload` says which files are large, these are sent where the
batch of git-lfs says, and a commit names them and holds the small ones.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import yaml

LARGE = 1000
"""Files of so many bytes or more are sent apart."""


@dataclass
class Model:
    """A repository of a model."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=list)  # their messages

    @property
    def head(self):
        return hashlib.sha1(repr((sorted(self.files.items()), self.commits)).encode()).hexdigest()

    def about(self, name):
        _, front, _ = self.files.get("README.md", b"---\n---\n").decode().split("---\n", 2)
        return {
            "id": name,
            "sha": self.head,
            "private": self.private,
            "siblings": [{"rfilename": path} for path in sorted(self.files)],
            "tags": [],
            "cardData": yaml.safe_load(front),
        }


class Uploads:
    """The part of the handler that takes requests of writers; `about` is the hub."""

    def take(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        hub = self.about
        hub.requests.append((self.command, path, {name.title(): value for name, value in self.headers.items()}))
        if (failure := self.failing(path)) is not None:
            failure.reached.set()
            return self.reply(failure.status, b"", failure.headers)
        if match := re.fullmatch(r"/uploads/([0-9a-f]{64})", path):
            hub.uploaded[match[1]] = body
            return self.reply(200)
        if path == "/api/validate-yaml":
            return self.reply(200, json.dumps({"errors": [], "warnings": []}))
        lines = [json.loads(line) for line in body.splitlines()]
        made = path == "/api/repos/create"
        name = f"{lines[0]['organization']}/{lines[0]['name']}" if made else _name(path)
        if self.refused(name):
            return None
        if made:
            hub.models[name] = Model(lines[0].get("visibility") == "private")
            return self.reply(200, json.dumps({"url": f"{hub.url}/{name}"}))
        return self.reply(200, json.dumps(self.sent(name, path, lines)))

    def refused(self, name):
        """Whether the request was refused, as its token may not write there."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (self.about.token, "hf_stranger"):
            self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif token != self.about.token or name.partition("/")[0] not in self.about.writable:
            told = f"You don't have the rights to write to {name}"
            self.reply(403, json.dumps({"error": told}), {"X-Error-Message": told})
        else:
            return False
        return True

    def sent(self, name, path, lines):
        """What is answered to the steps of an upload."""
        if path.endswith("/preupload/main"):
            files = [
                {"path": x["path"], "uploadMode": "lfs" if x["size"] >= LARGE else "regular", "shouldIgnore": False}
                for x in lines[0]["files"]
            ]
            return {"files": files}
        if path.endswith("/objects/batch"):
            return {"objects": [self.action(x) for x in lines[0]["objects"]]}
        return self.commit(name, lines)

    def action(self, wanted):
        """Where a large file is to be sent, unless it is here."""
        if wanted["oid"] in self.about.uploaded:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.about.url}/uploads/{wanted['oid']}"}}}

    def commit(self, name, lines):
        model = self.about.models[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                model.commits.append(value["summary"])
            elif line["key"] == "file":
                model.files[value["path"]] = base64.b64decode(value["content"])
            else:
                model.files[value["path"]] = self.about.uploaded[value["oid"]]
        return {"commitUrl": f"{self.about.url}/{name}/commit/{model.head}", "commitOid": model.head}

    def about_model(self, name):
        """Answer what a model's repository is, to those who may see it."""
        model = self.about.models.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", self.about.token, "hf_stranger"):
            return self.reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if model is None or (model.private and token != self.about.token):
            return self.reply(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        return self.reply(200, json.dumps(model.about(name)))

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _name(path):
    """`ORG/NAME` in the path of a request."""
    return re.search(r"([^/]+/[^/]+?)(?:/preupload/main|/commit/main|\.git/info/lfs/objects/batch)$", path)[1]
