"""Recorded values, compared or written."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="write tests/golden/data anew; see tests/golden")


@pytest.fixture(autouse=True)
def plain_output(monkeypatch):
    """Words without colours, whatever the environment asks for."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden(request):
    """Returns `check(file, value)`: asserts that `value` is what the file holds, or makes it so (--write-golden).

    A file that ends in .json holds any value of JSON, another one a text.
    """
    writing = request.config.getoption("--write-golden", default=False)

    def check(file, value):
        path = DATA / file
        is_json = path.suffix == ".json"
        if writing:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = json.dumps(value, ensure_ascii=False, indent=1) + "\n" if is_json else value
            path.write_text(written, encoding="utf-8")
        recorded = path.read_text(encoding="utf-8")
        assert value == (json.loads(recorded) if is_json else recorded), f"differs from {path}; see tests/golden"

    return check
