"""Fetching from a hub: checked, gone on with, once."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from hbtrain import hub as data
from hbtrain.errors import DataError
from hbtrain.hub import fetching, web
from tests.hub_server import page

LARGE = random.Random(7).randbytes(300_000)
OTHER = random.Random(8).randbytes(200_000)
FILES = {"README.md": b"about it\n", "data/xx/0.bin": LARGE, "data/xx/1.bin": b"small\n", "data/yy/0.bin": OTHER}


def data_set(*sources, **values):
    """A data set of two languages, whose own spelling is xx and yy."""
    return data.DataSet.model_validate(page(*sources, **values))


def of_repository(commit, *, name="owner/name", files=("data/{language}/*.bin",), **values):
    return {"repository": name, "revision": commit, "files": list(files), **values}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(web, "WAITS_S", (0, 0))


@pytest.fixture
def tiny(hub):
    return data_set(of_repository(hub.add("owner/name", FILES)))


def contents(fetched):
    return {path: (fetched.folder / path).read_bytes() for path in fetched.digests}


def test_files_of_a_language_are_fetched_under_their_own_names(tiny):
    fetched = data.fetch(tiny, ["de"])
    assert contents(fetched) == {path: FILES[path] for path in ("data/xx/0.bin", "data/xx/1.bin")}
    assert fetched.digests["data/xx/0.bin"] == f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    assert fetched.folder.name == "tiny"
    assert fetched.revisions == {"owner/name": tiny.sources[0].revision}


def test_huggingface_hub_finds_what_was_fetched(tiny, hub):
    data.fetch(tiny)
    before = len(hub.requests)
    for path in ("data/xx/0.bin", "data/xx/1.bin"):
        found = hf_hub_download("owner/name", path, repo_type="dataset", revision=tiny.sources[0].revision)
        assert Path(found).read_bytes() == FILES[path]
    assert len(hub.requests) == before


def test_what_huggingface_hub_fetched_is_checked_and_not_fetched_again(tiny, hub):
    found = hf_hub_download("owner/name", "data/xx/0.bin", repo_type="dataset", revision=tiny.sources[0].revision)
    data.fetch(tiny, ["de"])
    assert sum(hub.sent.values()) == len(LARGE) + len(FILES["data/xx/1.bin"])
    Path(found).resolve().write_bytes(LARGE[:-1] + b"!")
    notes = []
    assert contents(data.fetch(tiny, ["de"], notify=notes.append))["data/xx/0.bin"] == LARGE
    assert any("is damaged" in note for note in notes)


def test_a_second_fetch_asks_nothing_and_reads_nothing(tiny, hub, monkeypatch):
    first = data.fetch(tiny)
    before = len(hub.requests)
    monkeypatch.setattr(fetching, "digest_of", None)
    assert data.fetch(tiny).folder == first.folder
    assert data.where(tiny) == first.folder
    assert len(hub.requests) == before


def test_a_repository_is_read_once_page_by_page(hub):
    hub.page = 2
    files = {f"data/xx/{i}.bin": b"%d" % i for i in range(7)}
    tiny = data_set(of_repository(hub.add("owner/name", files)), of_repository(hub.add("owner/name", files)))
    assert len(data.listing(tiny, ["de"]).files) == 7
    data.listing(tiny, ["de"])
    assert len(hub.asked("/tree/")) == 4  # seven files and a folder


def test_a_mirror_is_asked_for_all_pages(hub):
    hub.page, hub.next = 1, "https://hub.invalid"
    tiny = data_set(of_repository(hub.add("owner/name", FILES)))
    assert len(data.listing(tiny).files) == 3


def test_a_repository_cannot_write_elsewhere(hub):
    tiny = data_set(of_repository(hub.add("owner/name", {"data/../../xx/0.bin": b"x"}), files=["data/*/*/xx/*"]))
    with pytest.raises(DataError, match=r"'data/\.\./\.\./xx/0\.bin', which would lie outside"):
        data.fetch(tiny)


@pytest.mark.parametrize("damaged", [lambda commit: commit[:20], lambda commit: commit[::-1]])
def test_the_newest_commit_stays_the_one_first_seen_while_it_is_there(hub, tmp_path, damaged):
    tiny = data_set(of_repository("main"))
    commit = hub.add("owner/name", FILES)
    first = data.fetch(tiny, ["de"])
    hub.add("owner/name", FILES | {"data/xx/2.bin": b"new\n"})
    assert data.fetch(tiny, ["de"]).revisions == first.revisions == {"owner/name": commit}
    (tmp_path / "hf/hub/datasets--owner--name/refs/main").write_text(damaged(commit))
    assert "data/xx/2.bin" in data.fetch(tiny, ["de"]).digests


def test_equal_files_are_fetched_once(hub):
    tiny = data_set(of_repository(hub.add("owner/name", {f"data/xx/{i}.bin": LARGE for i in range(3)})))
    assert data.listing(tiny, ["de"]).missing_size == len(LARGE)
    assert set(contents(data.fetch(tiny, ["de"])).values()) == {LARGE}
    assert hub.sent.total() == len(LARGE)


def test_the_size_is_known_before(tiny):
    listed = data.listing(tiny)
    assert (listed.size, listed.missing_size) == (500_006, 500_006)
    data.fetch(tiny, ["fr"])
    assert data.listing(tiny).missing_size == 300_006
    assert data.languages_here(tiny) == ("fr",)


def test_progress_ends_at_the_whole(tiny):
    told = []
    data.fetch(tiny, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (500_006, 500_006)
    assert sorted(told) == told


@pytest.mark.parametrize("place", ["hub", "address"])
def test_a_connection_that_breaks_is_gone_on_with(hub, place):
    if place == "hub":
        made, path = (
            data_set(of_repository(hub.add("owner/name", FILES))),
            "/lfs/owner/name/" + hashlib.sha256(LARGE).hexdigest(),
        )
    else:
        hub.plain["xx.bin"] = LARGE
        made, path = data_set(download(hub, sha256={"de": hashlib.sha256(LARGE).hexdigest()})), "/raw/xx.bin"
    for after in (100_000, 50_000, 30_000):
        hub.fail(path, method="GET", cut_after=after)
    assert LARGE in contents(data.fetch(made, ["de"])).values()
    assert hub.sent[path] < len(LARGE) + 3 * 20_000  # what was on its way may be sent again


def download(hub, **values):
    return {"url": f"{hub.url}/raw/{{language}}.bin", "to": "files/{language}.bin", **values}


def test_a_server_without_ranges_sends_all_again(tiny, hub):
    hub.fail("/lfs/", cut_after=100_000)
    hub.fail("/lfs/", ignores_range=True)
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE


def test_a_wrong_file_is_not_kept(tiny, hub):
    hub.fail("/lfs/", wrong=True)
    with pytest.raises(
        DataError, match=r"came with the digest sha256:.* where sha256:.* is expected, and was not kept"
    ):
        data.fetch(tiny, ["de"])
    with pytest.raises(DataError, match="not on this machine"):
        data.where(tiny)
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE


def test_a_wrong_beginning_is_fetched_again(tiny, hub):
    hub.fail("/lfs/", cut_after=100_000, wrong=True)
    told = []
    fetched = data.fetch(tiny, ["de"], progress=lambda done, of: told.append((done, of)))
    assert contents(fetched)["data/xx/0.bin"] == LARGE
    assert told[-1] == (300_006, 300_006)


def test_a_part_that_is_too_long_is_no_beginning(tiny, tmp_path):
    blobs = tmp_path / "hf/hub/datasets--owner--name/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(LARGE).hexdigest()}.incomplete").write_bytes(LARGE + b"more")
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE


@pytest.mark.parametrize("length", [len(LARGE), len(LARGE) + 5])
def test_of_unknown_size_a_part_may_be_all_or_more(hub, length):
    hub.plain["xx.bin"] = LARGE
    hub.fail("/raw/", method="HEAD", status=405, times=2)
    made = data_set(download(hub, sha256={"de": hashlib.sha256(LARGE).hexdigest()}))
    listed = data.listing(made, ["de"])
    assert listed.unknown == 1
    blob = listed.files[0].blob
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}.incomplete").write_bytes((LARGE + b"more!")[:length])
    assert contents(data.fetch(made, ["de"])) == {"files/xx.bin": LARGE}
    assert hub.sent.total() == (0 if length == len(LARGE) else len(LARGE))


def test_files_that_are_no_longer_in_the_cache_are_fetched_again(tiny, tmp_path):
    data.fetch(tiny)
    shutil.rmtree(tmp_path / "hf")
    assert contents(data.fetch(tiny))["data/yy/0.bin"] == OTHER


def test_a_cache_without_links_is_read(tiny, hub, tmp_path):
    folder = tmp_path / "hf/hub/datasets--owner--name/snapshots" / tiny.sources[0].revision / "data/xx"
    folder.mkdir(parents=True)
    (folder / "0.bin").write_bytes(LARGE)
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE
    assert hub.sent.total() == len(FILES["data/xx/1.bin"])


def archive_of(files, kind):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as zipped:
            for name, content in files.items():
                zipped.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as tape:
            for name, content in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(content)
                tape.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_is_fetched_once_and_each_language_taken_out_of_it(hub, kind):
    hub.plain["all"] = archive_of({"top/xx.txt": b"xx\n", "top/yy.txt": b"yy\n", "top/zz.txt": b"zz\n"}, kind)
    source = {"url": f"{hub.url}/raw/all", "to": "{code}.txt", "unpack": "top/{language}.txt"}
    made = data_set(source | {"sha256": hashlib.sha256(hub.plain["all"]).hexdigest()})
    first = data.fetch(made, ["de"])
    assert [path.name for path in first.folder.iterdir()] == ["de.txt"]
    both = data.fetch(made)
    assert {path.name: path.read_bytes() for path in both.folder.iterdir()} == {"de.txt": b"xx\n", "fr.txt": b"yy\n"}
    assert hub.sent.total() == len(hub.plain["all"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an archive", "cannot be unpacked: .*; delete it, and fetch"),
        (archive_of({"a": b""}, "zip"), "holds no xx"),
    ],
    ids=["not an archive", "without the language"],  # an archive holds the time when it was made
)
def test_an_archive_that_is_not_what_the_catalogue_says(hub, content, message):
    hub.plain["all"] = content
    made = data_set({"url": f"{hub.url}/raw/all", "to": "{language}.txt", "unpack": "{language}.txt"})
    with pytest.raises(DataError, match=message):
        data.fetch(made, ["de"])


def test_a_file_that_stays_wrong_is_fetched_twice_at_most(tiny, hub):
    for _ in range(9):
        hub.fail("/lfs/", wrong=True, cut_after=200_000)
        hub.fail("/lfs/", wrong=True)
    with pytest.raises(DataError, match="is expected, and was not kept"):
        data.fetch(tiny, ["de"])
    assert hub.sent.total() < 3 * len(LARGE)


def test_a_whole_part_of_another_file_is_fetched_again(tiny, tmp_path):
    blobs = tmp_path / "hf/hub/datasets--owner--name/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(LARGE).hexdigest()}.incomplete").write_bytes(LARGE[::-1])
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE


SCRIPT = textwrap.dedent(
    """
    import sys
    from hbtrain import hub as data
    from hbtrain.hub.names import data_set
    print(data.fetch(data_set("tiny", [sys.argv[1]]), ["de"], notify=lambda text: print(text, flush=True)).folder)
    """
)


def in_a_process(made, tmp_path, **environment):
    import yaml

    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    words = [sys.executable, "-c", SCRIPT, str(file)]
    env = os.environ | environment
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_a_file_is_gone_on_with(tiny, hub, tmp_path, monkeypatch, number):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    held = hub.fail("/lfs/", hold_after=150_000)
    process = in_a_process(tiny, tmp_path)
    assert held.reached.wait(60)
    parts = list((tmp_path / "hf").rglob("*.incomplete"))
    while parts[0].stat().st_size < 150_000:  # what was sent is on its way
        pass
    process.send_signal(number)
    process.wait()
    held.release.set()
    with pytest.raises(DataError, match="not on this machine"):
        data.where(tiny)
    sent = hub.sent.total()
    assert contents(data.fetch(tiny, ["de"]))["data/xx/0.bin"] == LARGE
    assert hub.sent.total() - sent <= 150_000 + len(FILES["data/xx/1.bin"]) + 16384
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_two_nodes_that_share_the_hubs_cache_download_once(tiny, hub, tmp_path):
    held = hub.fail("/lfs/", hold_after=150_000)
    first = in_a_process(tiny, tmp_path)
    assert held.reached.wait(60)
    second = in_a_process(tiny, tmp_path, HBTRAIN_CACHE=str(tmp_path / "own"))
    while "waiting for it" not in (line := second.stdout.readline()):
        assert line
    held.release.set()
    for process in (first, second):
        folder = Path(process.communicate()[0].splitlines()[-1])
        assert (folder / "data/xx/0.bin").read_bytes() == LARGE
    assert hub.sent.total() == len(LARGE) + len(FILES["data/xx/1.bin"])
