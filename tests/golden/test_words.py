"""What commands say of themselves: every --help, the keys and the recipes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.conftest import DATA

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "status",
    *(
        "",
        "audit",
        "compare",
        "doctor",
        "evaluate",
        "evaluate-run",
        "export",
        "keys",
        "merge",
        "mine",
        "prepare",
        "push",
        "recipes",
        "search",
    ),
    *(
        "submit",
        "sweep",
        "sweep merge",
        "train",
        "translate",
        "verify",
        "prepare check",
        "prepare columns",
        "prepare huggingface",
        "prepare lines",
    ),
    *(
        "prepare miracl",
        "prepare mmarco",
        "prepare mr-tydi",
        "prepare mteb",
        "prepare pages",
        "prepare parallel",
        "prepare plugin",
        "prepare squad",
    ),
    *("data", "data list", "data info", "data licence", "data fetch", "data where"),
]
PROGRAMS = ["tune/sweep.py", "cluster/submit"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(hbtrain, golden, command):
    code, out, _ = hbtrain(*command.split(), "--help")
    assert code == 0
    golden(f"help/{'-'.join(['hbtrain', *command.split()])}.txt", out)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_programs(golden, monkeypatch, program):
    monkeypatch.setenv("COLUMNS", "120")
    done = subprocess.run([sys.executable, ROOT / program, "--help"], capture_output=True, text=True, check=True)
    golden(f"help/{program.replace('/', '-')}.txt", done.stdout)


def test_no_command_is_left_out(hbtrain):
    listed = {
        parent + name
        for parent in ("", "prepare ", "data ", "sweep ")
        for name in commands(hbtrain(*parent.split(), "--help")[1])
    }
    assert listed | {""} == set(COMMANDS)
    assert len(list((DATA / "help").iterdir())) == len(COMMANDS) + len(PROGRAMS)


def commands(shown):
    """The names in the list of commands of a help."""
    block = shown.split("─ Commands ─")[1].split("╰")[0]
    words = [line.strip("│ ").split(" ")[0] for line in block.splitlines() if line.startswith("│ ") and line[2] != " "]
    return [word for word in words if not word.startswith("-")]


@pytest.mark.parametrize("command", ["keys", "recipes"])
def test_lists(hbtrain, golden, command):
    code, out, _ = hbtrain(command)
    assert code == 0
    golden(f"{command}.txt", out)
