"""`hbtrain sweep` from a checkout, installed or not: `python tune/sweep.py alpha-grid --seed 0 1 2 3 4`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # a script's own folder is what Python searches; the package is in the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cyclopts import App

from hbtrain.cli.main import main
from hbtrain.cli.sweep import with_sweep_commands

app = with_sweep_commands(
    App(
        name="sweep.py",
        help="Run a recipe many times with a few keys varied, and compare the runs.",
        version_flags=[],
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
)

if __name__ == "__main__":
    main(app)
