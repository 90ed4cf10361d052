"""`hbtrain audit`: shows what the batches of a run will be, without training."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from hbtrain.cli.outputs import Override, Recipe, output_place, said_aside, written_file
from hbtrain.reporting.console import TextConsole


def audit(
    recipe: Recipe,
    *overrides: Override,
    steps: int | None = None,
    sample: int = 50,
    without_tokens: bool = False,
    picture: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """See what the batches will be like before paying for them: `hbtrain audit my-recipe.yaml --picture audit.png`.

    Shows kinds, sources, languages, epochs, collisions, tokens and memory. Nothing is trained, no weights are read.

    Parameters
    ----------
    steps
        Steps to look at, from the first; by default all of the run.
    sample
        Batches that are tokenized, at most.
    without_tokens
        Read no texts, and leave out tokens and padding; the backbone is not needed then.
    picture
        PNG file, or s3:// URI, to draw.
    json_
        Print JSON instead of tables.
    """
    from hbtrain.config import load_config
    from hbtrain.config.load import parse_flags

    config = load_config(recipe, parse_flags(overrides))
    to = None if picture is None else output_place(picture, is_file=True, option="--picture")
    from hbtrain.audit import audit as run
    from hbtrain.audit.picture import draw
    from hbtrain.audit.record import record
    from hbtrain.audit.tables import notes, tables

    errors = TextConsole(stderr=True)
    with errors.status("reading the plan") as status:

        def tell(what: str, done: int, total: int) -> None:
            status.update(Text(f"{what} {done}/{total}"))

        found = run(config, steps, sample, tokens=not without_tokens, progress=tell, notify=said_aside)
        if to is not None:
            with written_file(to) as file:
                draw(found, file)
    console = TextConsole()
    if json_:
        print(json.dumps(record(found)))
        return
    for table in tables(found):
        console.print(table)
        console.print()
    for note in notes(found):
        console.print(f"note: {note}", style="dim", soft_wrap=True)
    if to is not None:
        console.print(f"picture  {to}", soft_wrap=True)
