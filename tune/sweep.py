"""The command line of sweeps: `python tune/sweep.py alpha-grid --recipe static-parallel --seed 0 1 2 3 4`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

if not __package__:  # a script's own folder is what Python searches; the packages are in the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cyclopts import App, Parameter

from hbtrain.cli.main import main

app = App(
    name="sweep.py",
    help="Run a recipe many times with a few keys varied, and compare the runs.",
    version_flags=[],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


@app.default
def sweep(space: str, /, *flags: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Sweep: `python tune/sweep.py alpha-grid --training.steps 200`.

    The same command goes on with a sweep that was cut off: finished trials are kept, others go on from their last
    checkpoint. A wider range of a key continues the sweep as well.

    Parameters
    ----------
    space
        A shipped space's name (alpha-grid, alpha-asha, alpha-pareto, alpha-pbt, samplings, backbones) or a YAML file;
        docs/sweeps.md has the form.
    flags
        --recipe NAME trains another recipe. For a key that the space varies, the values to try: --seed 0 1 2.
        For a space that is searched, how: --search.trials 24.
        Any other key of the configuration, for all trials: --training.steps 200 (see `hbtrain keys`).
    """
    from hbtrain.config.load import parse_flags
    from tune.space.file import load_space, with_flags

    chosen = with_flags(load_space(space), parse_flags(flags))
    from tune.run import run_sweep

    run_sweep(chosen)


if __name__ == "__main__":
    main(app)
