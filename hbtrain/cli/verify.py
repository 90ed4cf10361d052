"""`hbtrain verify`: compares the gradient of one step with that of a plain process."""

from __future__ import annotations

import sys

from hbtrain.cli.outputs import Override, Recipe
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole


def verify(recipe: Recipe, *overrides: Override, step: int = 0) -> None:
    """Check that the gradient is right, on your own setup: `hbtrain verify my-recipe.yaml --step 3`.

    One step's gradient by the recipe's workers, ZeRO stage, chunks and precision is compared with that of one plain
    process over the same batch. Exit code 0 if they agree, 1 if not. The plain process holds the whole batch at once:
    take a smaller --batching.global_batch_size where its memory does not suffice.

    Parameters
    ----------
    step
        The step whose batch is used.
    """
    from hbtrain.config import load_config
    from hbtrain.config.load import parse_flags

    config = load_config(recipe, parse_flags(overrides))
    if not 0 <= step < config.training.steps:
        raise ConfigError(f"--step {step}: the run has the steps 0 to {config.training.steps - 1}")
    from hbtrain.cli.display import RunDisplay, show_agreement
    from hbtrain.runs.verify import verify as run

    console = TextConsole()
    with RunDisplay(console, 1) as display:
        agreement = run(config, step, display)
    show_agreement(console, config, agreement)
    if not agreement.holds:
        sys.exit(1)
