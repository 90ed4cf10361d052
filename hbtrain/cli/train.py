"""`hbtrain train`: trains and evaluates by a recipe."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def train(
    recipe: str,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    accept_changed_inputs: bool = False,
) -> None:
    """Train and evaluate: `hbtrain train quickstart --batching.alpha 0.3`.

    Parameters
    ----------
    recipe
        A shipped recipe's name (see `hbtrain recipes`) or a YAML file.
    overrides
        Any key of the configuration as a flag: --batching.alpha 0.3 --data.sources a.jsonl.gz b.jsonl.gz
        (see `hbtrain keys`).
    accept_changed_inputs
        Let an unfinished run go on although a file it reads has other content than when it began.
    """
    from hbtrain.config import load_config
    from hbtrain.config.load import parse_flags

    config = load_config(recipe, parse_flags(overrides))
    from hbtrain.cli.display import RunConsole, RunDisplay, show_outcome
    from hbtrain.cli.outputs import command_line
    from hbtrain.runs.run import train as run

    console = RunConsole()
    with RunDisplay(console, config.training.steps) as display:
        outcome = run(config, display, accept_changed_inputs=accept_changed_inputs, command=command_line())
    show_outcome(console, outcome)
