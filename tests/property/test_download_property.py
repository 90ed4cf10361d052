"""Wherever a download breaks off, and whatever came before, what is there at its end is the file, and no more was sent
than was missing.
"""

import random
from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain import hub as data
from hbtrain.errors import DataError
from hbtrain.hub import web
from tests import hub_server

CONTENT = random.Random(11).randbytes(100_000)
CUTS = st.lists(st.tuples(st.integers(0, len(CONTENT)), st.booleans()), max_size=4)
"""After how many bytes each answer breaks off, and whether its server knows no parts of files."""


@pytest.fixture(scope="module")
def served():
    with pytest.MonkeyPatch.context() as patch, hub_server.serve() as hub:
        hub_server.direct(hub, Path("nowhere"), patch)
        patch.setattr(web, "WAITS_S", (0,) * 4)
        hub.plain["file"] = CONTENT
        yield hub


@settings(max_examples=60)
@given(begun=st.integers(0, len(CONTENT)), cuts=CUTS, size_is_known=st.booleans())
def test_what_is_there_at_the_end_is_the_file(served, tmp_path_factory, begun, cuts, size_is_known):
    part = tmp_path_factory.mktemp("download") / "part"
    # A name of its own, as a server may still count what it sent to an earlier download that broke off.
    path = f"/raw/{part.parent.name}"
    served.plain[part.parent.name] = CONTENT
    part.write_bytes(CONTENT[:begun])
    served.failures = [
        hub_server.Failure("/raw/", cut_after=after, ignores_range=ignores, times=1) for after, ignores in cuts
    ]
    told = []
    size = len(CONTENT) if size_is_known else None
    as_one = web.Web(lambda text: None).download(f"{served.url}{path}", part, size, {}, told.append)
    assert part.read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)
    assert as_one <= (begun == 0)
    if not any(ignores for _, ignores in cuts):
        assert served.sent[path] <= len(CONTENT) - begun + len(cuts) * hub_server.BLOCK


FILES = {"data/xx/0.bin": CONTENT[:60_000], "data/xx/1.bin": b"small\n", "data/xx/2.bin": b""}
STATUSES = st.sampled_from([204, 302, 400, 401, 403, 404, 408, 410, 416, 429, 500, 503])
HEADERS = st.sampled_from([{}, {"Retry-After": "0"}, {"X-Error-Code": "GatedRepo"}, {"Location": "/nowhere"}])
BREAKS = st.integers(0, 60_000)
HOW = st.one_of(
    st.fixed_dictionaries({"status": STATUSES, "headers": HEADERS, "method": st.sampled_from(["GET", "HEAD"])}),
    st.fixed_dictionaries({"cut_after": BREAKS, "ignores_range": st.booleans()}),
    st.fixed_dictionaries({"wrong": st.just(True)}, optional={"cut_after": BREAKS}),
)
PATHS = st.sampled_from(["/tree/", "/lfs/", "/resolve/", "/raw/"])
FAILURES = st.builds(lambda path, times, how: {"path": path, "times": times, **how}, PATHS, st.integers(1, 5), HOW)


@settings(max_examples=40)
@given(failures=st.lists(st.lists(FAILURES, max_size=3), min_size=1, max_size=2))
def test_whatever_a_server_does_nothing_wrong_is_taken_for_whole(served, tmp_path_factory, failures):
    folder = tmp_path_factory.mktemp("fetched")
    url, digest = f"{served.url}/raw/{{language}}", hub_server.sha256(CONTENT)
    commit = served.add("owner/name", FILES)
    one = data.DataSet.model_validate(
        {
            "name": "tiny",
            "title": "A set of tests",
            "purposes": ["benchmark"],
            "form": "beir",
            "languages": {"de": "file"},
            "sources": [
                {"repository": "owner/name", "revision": commit, "files": ["data/xx/*.bin"]},
                {"url": url, "to": "{language}", "sha256": digest},
            ],
            "licence": {"name": "none", "page": "https://example.org"},
            "citation": "none",
            "checked": "by a test",
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        for failing in (*failures, []):
            served.failures = [hub_server.Failure(**how) for how in failing]
            try:
                fetched = data.fetch(one, cache=str(folder / "cache"))
            except DataError as error:
                assert failing, error
            else:
                found = {path: (fetched.folder / path).read_bytes() for path in fetched.digests}
                assert found == FILES | {"file": CONTENT}
