"""`hbtrain sweep`: runs a recipe many times with a few keys varied, as does `python tune/sweep.py` in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def sweep(
    space: str,
    /,
    *flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
    accept_changed_inputs: bool = False,
) -> None:
    """Run a recipe many times with a few keys varied, and compare the runs.

    The same command goes on with a sweep that was cut off: finished trials are kept, others go on from their last
    checkpoint. A wider range of a key continues the sweep as well.

    Parameters
    ----------
    space
        A shipped space (alpha-grid, alpha-asha, alpha-pareto, alpha-pbt, mixture, samplings, kinds,
        backbones, ratio-batch, ratio-size) or a YAML file; docs/sweeps.md has the form.
    flags
        --recipe NAME trains another recipe. For a key that the space varies, the values to try: --seed 0 1 2.
        For a space that is searched, how: --search.trials 24.
        Any other key of the configuration, for all trials: --training.steps 200 (see `hbtrain keys`).
    accept_changed_inputs
        Let the sweep go on although a file its trials read has other content than when it began; trials that are
        finished count as they are.
    """
    from hbtrain.config.load import parse_flags
    from hbtrain.sweeps.space_file import load_space, with_flags

    chosen = with_flags(load_space(space), parse_flags(flags))
    from hbtrain.sweeps.sweep import run_sweep

    called = "tune/sweep.py" if Path(sys.argv[0]).name == "sweep.py" else "hbtrain sweep"
    run_sweep(chosen, called, accept_changed_inputs)
