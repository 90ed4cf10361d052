"""`hbtrain recipes` and `hbtrain keys`: what there is to choose from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def recipes() -> None:
    """List the recipes that ship with hbtrain."""
    from hbtrain.config import recipe_names, recipe_summary

    table = Table(box=None, show_header=False)
    for name in recipe_names():
        table.add_row(f"[bold]{name}[/bold]", recipe_summary(name))
    Console().print(table)


def keys() -> None:
    """List every key of the configuration with its default."""
    from hbtrain.config import Config, to_flat
    from hbtrain.config.keys import all_keys

    defaults = to_flat(Config())
    for key in all_keys():
        Console().print(f"{key} = {defaults.get(key)}", highlight=False, markup=False, soft_wrap=True)
