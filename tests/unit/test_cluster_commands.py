"""Every command of hbtrain that a file or a text below cluster/ names is one that hbtrain takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hbtrain.cli.main import app
from hbtrain.config import load_config
from hbtrain.config.load import parse_flags
from hbtrain.sweeps.space import trials_of
from hbtrain.sweeps.space_file import load_space, with_flags

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(
    r"(?:\bhbtrain(?: submit)?|cluster/submit) (train|evaluate|sweep) ([^`]+)|\btune/(sweep)\.py ([^`]+)"
)
ABSOLUTE = re.compile(r"[/$]")


def texts():
    """{file: its text, each command on one line}."""
    found = {}
    for path in sorted((ROOT / "cluster").rglob("*")):
        if path.suffix in {".md", ".yaml", ".sbatch"}:
            found[path.name] = path.read_text().replace("\\\n", " ")
    job = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "ray-job.yaml").read_text())
    found["ray-job.yaml"] = job["spec"]["entrypoint"]
    return found


def commands():
    """(file, train or evaluate or sweep, its arguments)."""
    found = []
    for file, text in texts().items():
        for line in text.splitlines():
            for match in COMMAND.finditer(line):
                kind, arguments = (match[1], match[2]) if match[1] else (match[3], match[4])
                found.append((file, kind, shlex.split(arguments.partition('" >&2')[0], comments=True)))
    return found


def test_commands_are_found_where_they_are():
    places = {(file, kind) for file, kind, _ in commands()}
    assert {("ray-job.yaml", "train"), ("ray.sbatch", "train")} <= places
    assert {("README.md", kind) for kind in ("train", "evaluate", "sweep")} <= places


@pytest.mark.parametrize(("file", "kind", "arguments"), commands())
def test_the_command_is_one_that_hbtrain_takes(file, kind, arguments):
    first, *rest = arguments
    flags = parse_flags(rest)
    if kind == "train":
        app.parse_args(["train", *arguments], print_error=False, exit_on_error=False)
        assert ABSOLUTE.match(load_config(first, flags).storage)
    elif kind == "sweep":
        assert len(trials_of(with_flags(load_space(first), flags))) > 1
        assert ABSOLUTE.match(str(flags["storage"]))
    else:
        app.parse_args(["evaluate", *arguments], print_error=False, exit_on_error=False)
        assert ABSOLUTE.match(first)
        assert ABSOLUTE.match(str(flags["output"]))


@pytest.mark.parametrize(("file", "kind", "arguments"), commands())
def test_the_command_is_one_that_integration_tests_run(file, kind, arguments):
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "integration").glob("test_*.py"))
    start = {
        "train": f'"train", "{arguments[0]}"',
        "evaluate": '"evaluate", run / "model"',
        "sweep": f'"{arguments[0]}"',
    }
    assert start[kind] in tests
