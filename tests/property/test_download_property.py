"""Wherever a download breaks off, and whatever came before, what is there at its end is the file, and no more was sent
than was missing.
"""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    part.write_bytes(CONTENT[:begun])
    served.failures = [
        hub_server.Failure("/raw/", cut_after=after, ignores_range=ignores, times=1) for after, ignores in cuts
    ]
    served.sent.clear()
    told = []
    size = len(CONTENT) if size_is_known else None
    as_one = web.Web(lambda text: None).download(f"{served.url}/raw/file", part, size, {}, told.append)
    assert part.read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)
    assert as_one <= (begun == 0)
    if not any(ignores for _, ignores in cuts):
        assert served.sent.total() <= len(CONTENT) - begun + len(cuts) * hub_server.BLOCK
