"""`hbtrain data`: what people see of data sets, and what they are told when one cannot be fetched."""

import json
import os
import random
import re
import sys
from pathlib import Path

import pytest
import yaml

from hbtrain.hub import web
from tests.hub_server import git_blob, page, sha256
from tests.unit.test_full_disk import no_room

LARGE = random.Random(3).randbytes(30_000)
FILES = {"data/xx/0.bin": LARGE, "data/xx/1.bin": b"small\n", "data/yy/0.bin": LARGE[::-1]}
"""What is served of a set in two languages, which it spells xx and yy."""


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(web, "WAITS_S", (0, 0))


@pytest.fixture
def describe(tmp_path):
    """Writes a catalogue's file; returns its path."""

    def write(*sources, **values):
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(page(*sources, **values)))
        return file

    return write


@pytest.fixture
def tiny(hub, describe):
    return describe(repository(hub.add("owner/name", FILES)))


def repository(commit, **values):
    return {"repository": "owner/name", "revision": commit, "files": ["data/{language}/*.bin"], **values}


def address(hub, **values):
    return {"url": f"{hub.url}/raw/{{language}}.bin", "to": "{language}.bin", **values}


def test_fetch_shows_where_it_is_and_where_it_is_from(hbtrain, hub, tiny):
    code, out, err = hbtrain("data", "fetch", "tiny", "--catalogue", tiny, "--languages", "de")
    assert code == 0, err
    assert re.search(r"fetching tiny: 2 files, 0\.0\d+ MiB", err)
    commit = hub.repositories["owner/name"].commit
    assert re.search(rf"from +owner/name at {commit}", out)
    folder = Path(re.search(r"folder +(\S+)", out)[1])
    assert (folder / "data/xx/0.bin").read_bytes() == LARGE
    assert not (folder / "data/yy").exists()
    assert hbtrain("data", "where", "tiny", "--catalogue", tiny) == (0, f"{folder}\n", "")


def test_without_a_terminal_progress_is_lines(hbtrain, tiny, monkeypatch):
    monkeypatch.setattr("hbtrain.cli.display.LINE_EVERY_S", 0)
    err = hbtrain("data", "fetch", "tiny", "--catalogue", tiny)[2]
    assert re.search(r"^0\.0572 MiB of 0\.0572 MiB  \S+ [MG]iB/s$", err, re.MULTILINE)
    assert re.search(r"^\S+ MiB of 0\.0572 MiB  \S+ [MG]iB/s  .+ left$", err, re.MULTILINE)


def test_documents_are_for_scripts(hbtrain, hub, tiny):
    code, out, _ = hbtrain("data", "fetch", "tiny?languages=de", "--catalogue", tiny, "--json")
    fetched = json.loads(out)
    assert code == 0
    assert fetched["sources"] == {"owner/name": hub.repositories["owner/name"].commit}
    assert fetched["languages"] == ["de"]
    listed = {one["name"]: one for one in json.loads(hbtrain("data", "list", "--catalogue", tiny, "--json")[1])}
    assert listed["tiny"]["here"] == ["de"]
    assert json.loads(hbtrain("data", "info", "tiny", "--catalogue", tiny, "--json")[1]) == listed["tiny"]


def test_list_info_and_licence_say_what_the_catalogue_does(hbtrain, hub, describe):
    file = describe(repository("a" * 40, gated=True), sizes={"de": 2000, "fr": 100})
    listed = hbtrain("data", "list", "--catalogue", file)[1]
    assert re.search(
        r"^tiny +benchmark · 2 languages · 1.96 GiB · cc0-1.0 · gated\n +A set of tests$", listed, re.MULTILINE
    )
    told = hbtrain("data", "info", "tiny", "--catalogue", file)[1]
    assert re.search(r"languages +de \(xx\), fr \(yy\)", told)
    assert re.search(r"here +none of it", told)
    assert re.search(r"not for training +de, yo\n", hbtrain("data", "info", "miracl")[1])
    assert re.search(r"other side +en, which may be named too\n", hbtrain("data", "info", "tatoeba")[1])
    assert "NanoMIRACL at main (the newest, as no commit is known)" in hbtrain("data", "info", "nano-miracl")[1]
    licence = hbtrain("data", "licence", "tiny", "--catalogue", file)[1]
    assert licence.startswith("cc0-1.0  https://example.org/licence; gated")
    assert not hub.requests


def test_a_family_is_fetched_as_a_whole(hbtrain, hub, describe):
    parts = {
        name: {"repository": f"owner/{name}", "revision": hub.add(f"owner/{name}", {"data/xx/0.bin": name.encode()})}
        for name in ("one", "two")
    }
    file = describe({"files": ["data/{language}/*.bin"]}, parts=parts, languages={"de": "xx"})
    listed = hbtrain("data", "list", "--catalogue", file)[1]
    assert re.search(r"^tiny +benchmark .* 2 sets\n +A set of tests$", listed, re.MULTILINE)
    code, out, err = hbtrain("data", "fetch", "tiny", "--catalogue", file)
    assert code == 0, err
    folders = re.findall(r"folder +(\S+)", out)
    assert [(Path(folder) / "data/xx/0.bin").read_text() for folder in folders] == ["one", "two"]
    assert hbtrain("data", "where", "tiny", "--catalogue", file)[1].split() == folders
    assert "sets        tiny-one, tiny-two" in hbtrain("data", "info", "tiny", "--catalogue", file)[1]


def refused(hbtrain, *arguments):
    """The error of a command that ends with exit code 2."""
    code, out, err = hbtrain("data", *arguments)
    assert (code, out) == (2, ""), err
    *_, last = err.splitlines()
    assert "error: " in last
    return last.rpartition("error: ")[2]


def test_more_than_five_gigabytes_need_consent(hbtrain, tiny, monkeypatch):
    monkeypatch.setattr("hbtrain.cli.data.CONSENT_BYTES", 50_000)
    words = ("fetch", "tiny", "--catalogue", tiny)
    assert refused(hbtrain, *words) == "tiny: 0.0572 MiB are to be fetched; add --yes, or name fewer --languages"
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdin, "readline", lambda: "n\n", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert refused(hbtrain, *words) == "nothing was fetched; with --languages it is less"
    monkeypatch.setattr(sys.stdin, "readline", lambda: "y\n", raising=False)
    assert hbtrain("data", *words)[0] == 0
    assert hbtrain("data", *words)[0] == 0, "nothing is left to be fetched"


def test_names_languages_and_options_that_are_not_there(hbtrain, hub, tiny):
    words = ("--catalogue", tiny)
    assert refused(hbtrain, "fetch", "tinny", *words).startswith("unknown data set 'tinny': did you mean tiny? known")
    assert "language 'it' is not in data set tiny; it has de, fr" in refused(
        hbtrain, "fetch", "tiny", *words, "--languages", "it"
    )
    assert "tiny has no option 'translator'; it has none" in refused(hbtrain, "fetch", "tiny?translator=x", *words)
    assert "is for benchmark, not for training" in refused(hbtrain, "fetch", "tiny", *words, "--purpose", "training")
    assert "must be hub:NAME or" in refused(hbtrain, "fetch", "tiny?split", *words)
    assert not hub.requests


def test_a_pattern_that_matches_nothing_is_an_error(hbtrain, hub, describe):
    commit = hub.add("owner/name", {"data/xx/0.bin": LARGE})
    file = describe(repository(commit))
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", file)
    assert message == (
        f"data set tiny has no such files for fr: owner/name at {commit[:12]} holds none that match data/yy/*.bin"
    )
    optional = describe(repository(commit, files=["data/xx/*.bin"], optional=["data/{language}/*.bin"]))
    assert hbtrain("data", "fetch", "tiny", "--catalogue", optional)[0] == 0


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_set_says_where_to_accept_its_terms(hbtrain, hub, describe, monkeypatch, token):
    file = describe(repository(hub.add("owner/name", FILES, gated=True), gated=True))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", file)
    given = "the token that was given has no access" if token else "no token was given"
    assert message == (
        f"owner/name is gated, and {given}: accept its terms at https://huggingface.co/datasets/owner/name, "
        "then run `hf auth login`, or set HF_TOKEN"
    )


def test_a_token_opens_a_gated_set_and_is_given_to_the_hub_alone(hbtrain, hub, describe, monkeypatch):
    hub.plain |= {"xx.bin": LARGE, "yy.bin": LARGE}
    file = describe(
        repository(hub.add("owner/name", FILES, gated=True)), address(hub, sha256=sha256(LARGE), to="a/{language}")
    )
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert hbtrain("data", "fetch", "tiny", "--catalogue", file)[0] == 0
    with_token = {path for _, path, headers in hub.requests if "Authorization" in headers}
    assert with_token and not [path for path in with_token if path.startswith(("/lfs/", "/raw/"))]
    assert hub.asked("/lfs/")


def test_a_token_that_is_not_accepted(hbtrain, hub, tiny, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not accept the token; make another" in refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)


def test_a_repository_or_a_revision_that_is_gone(hbtrain, hub, describe):
    hub.add("owner/name", FILES)
    file = describe(repository("f" * 40))
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", file)
    assert message == (
        f"owner/name has no revision {'f' * 40} any more; give an entry with another one (--catalogue FILE)"
    )
    hub.repositories.clear()
    assert "has no dataset repository owner/name, or it is not open to you" in refused(
        hbtrain, "fetch", "tiny", "--catalogue", file
    )


def test_a_server_that_asks_to_wait_is_asked_again(hbtrain, hub, tiny):
    hub.fail("/tree/", status=429, headers={"Retry-After": "0"})
    hub.fail("/lfs/", status=503, times=2)
    code, _, err = hbtrain("data", "fetch", "tiny", "--catalogue", tiny)
    assert code == 0
    assert "asks to wait 0 s" in err


@pytest.mark.parametrize(
    ("where", "failure", "message"),
    [
        ("/tree/", {"status": 429, "headers": {"Retry-After": "4000"}}, "too many requests; wait 4000 s, then"),
        ("/lfs/", {"status": 429, "headers": {"ratelimit": '"api";r=0;t=900'}}, "many requests; wait 900 s, then"),
        ("/lfs/", {"status": 502, "times": 9}, "refuses owner/name: 502 Bad Gateway; the same command goes on"),
        ("/lfs/", {"status": 404}, "refuses owner/name: 404 Not Found; see to HF_ENDPOINT"),
        ("/resolve/", {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, "is gone; give an entry with"),
        ("/lfs/", {"cut_after": 0, "times": 9}, "cannot be read .*; the same command goes on where it stopped"),
        ("/lfs/", {"wrong": True}, "came with the digest sha256:.* where sha256:.* is expected, and was not kept"),
    ],
)  # fmt: skip
def test_refusals_of_servers(hbtrain, hub, tiny, where, failure, message):
    hub.fail(where, **failure)
    words = ("--catalogue", tiny, "--languages", "fr")
    assert re.search(message, refused(hbtrain, "fetch", "tiny", *words))
    assert "is not on this machine; run: hbtrain data fetch tiny" in refused(
        hbtrain, "where", "tiny", "--catalogue", tiny
    )
    hub.failures.clear()
    assert hbtrain("data", "fetch", "tiny", *words)[0] == 0, "nothing half-written was taken for whole"


@pytest.mark.parametrize("body", ["<html>Log in!</html>", "{}", '[{"type": "file", "path": "a"}]', "[3]"])
def test_a_server_that_is_no_hub(hbtrain, hub, tiny, monkeypatch, body):
    from huggingface_hub import constants

    commit = hub.repositories["owner/name"].commit
    hub.plain[f"api/datasets/owner/name/tree/{commit}"] = body.encode()
    monkeypatch.setattr(constants, "ENDPOINT", f"{hub.url}/raw")
    assert "does not answer as a hub does; see to HF_ENDPOINT" in refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)


def test_a_proxy_that_cannot_be_used(hbtrain, tiny, monkeypatch):
    from huggingface_hub import close_session

    monkeypatch.setenv("all_proxy", "nonsense://127.0.0.1:1")
    close_session()
    try:
        message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)
    finally:
        close_session()
    assert re.search(r"no connection can be made \(.*nonsense.*\); see to proxies", message)


@pytest.mark.parametrize("reason", ["offline", "no server"])
def test_without_a_network_another_machine_is_told_what_to_do(hbtrain, hub, describe, monkeypatch, tmp_path, reason):
    from huggingface_hub import constants

    file = describe(repository(hub.add("owner/name", FILES)), address(hub), options={"version": ["v1", "v2"]})
    if reason == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    message = refused(hbtrain, "fetch", "tiny?version=v2", "--catalogue", file, "--languages", "de")
    assert message.endswith(
        "or on a machine with a network run: hbtrain data fetch 'tiny?version=v2' --languages de --catalogue FILE ; "
        f"and copy to the same place here: {tmp_path}/hf/hub/datasets--owner--name and {tmp_path}/cache/hub/files"
    )
    assert ("HF_HUB_OFFLINE is set" if reason == "offline" else "127.0.0.1:1 cannot be reached") in message


def test_what_was_copied_from_another_machine_is_found_without_a_network(hbtrain, hub, describe, monkeypatch, tmp_path):
    from huggingface_hub import constants

    hub.plain["xx.bin"] = LARGE
    file = describe(repository(hub.add("owner/name", FILES)), address(hub, md5={"de": "0" * 32}))
    words = ("--catalogue", file, "--languages", "de")
    assert "is expected" in refused(hbtrain, "fetch", "tiny", *words)
    file = describe(repository(hub.add("owner/name", FILES)), address(hub, git={"de": git_blob(LARGE)}))
    assert hbtrain("data", "fetch", "tiny", *words)[0] == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "cache" / "hub" / "files").rename(tmp_path / "copied")
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "another"))
    (tmp_path / "another" / "hub").mkdir(parents=True)
    (tmp_path / "copied").rename(tmp_path / "another" / "hub" / "files")
    code, out, err = hbtrain("data", "fetch", "tiny", *words)
    assert code == 0, err
    assert str(tmp_path / "another") in out


def test_a_full_disk_is_one_line_and_keeps_what_came(hbtrain, hub, tiny, tmp_path, monkeypatch):
    with no_room():
        message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)
    blobs = tmp_path / "hf/hub/datasets--owner--name/blobs"
    assert message == f"{blobs} cannot be written: File too large; make room there, and the same command goes on"
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.statvfs(path) and type("Usage", (), {"free": 1 << 14}))
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)
    assert message.startswith(f"{blobs} has room for 0.0156 MiB, and 0.0")
    assert message.endswith("or set HF_HOME to a folder on another disk")


def test_a_token_that_cannot_be_read(hbtrain, tiny, tmp_path):
    (tmp_path / "hf" / "token").mkdir(parents=True)
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)
    assert re.search(
        "the token for the hub cannot be read: .*Is a directory.*; see to HF_HOME, or set HF_TOKEN", message
    )


@pytest.mark.parametrize(("variable", "folder"), [("HF_HOME", "hf/hub"), ("HBTRAIN_CACHE", "cache")])
def test_a_cache_that_cannot_be_written_is_named(hbtrain, tiny, tmp_path, variable, folder):
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / folder).write_text("a file where the folder should be")
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny, "--languages", "de")
    assert message.startswith(f"{tmp_path / folder}")
    assert message.endswith(f"cannot be written: Not a directory; set {variable} to a folder that can be written")


def test_a_cache_that_cannot_be_looked_into_is_named(hbtrain, tiny, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ("x" * 300)))
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny)
    assert message.endswith("cannot be written: File name too long; set HF_HOME to a folder that can be written")
    assert hbtrain("data", "list", "--catalogue", tiny)[0] == 0


def test_a_file_that_cannot_be_read_is_named(hbtrain, hub, tiny, tmp_path):
    digest = sha256(LARGE)
    (tmp_path / "hf/hub/datasets--owner--name/blobs" / digest).mkdir(parents=True)
    message = refused(hbtrain, "fetch", "tiny", "--catalogue", tiny, "--languages", "de")
    assert re.search(f"blobs/{digest} cannot be read: Is a directory; see to its rights, or set HF_HOME to", message)


def test_a_whole_cache_is_only_read(hbtrain, tiny, tmp_path, monkeypatch):
    words = ("data", "fetch", "tiny", "--catalogue", tiny)
    hbtrain(*words)
    before = states(tmp_path / "hf")
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "another"))
    assert hbtrain(*words)[0] == 0
    assert states(tmp_path / "hf") == before


def states(folder):
    return {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_proxies_are_used(hbtrain, hub, tiny, monkeypatch):
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    close_session()  # the next one finds the proxy
    try:
        code, _, err = hbtrain("data", "fetch", "tiny", "--catalogue", tiny)
    finally:
        close_session()
    assert code == 0, err
    assert {headers["Host"] for _, path, headers in hub.requests if "/tree/" in path} == {"hub.invalid"}
