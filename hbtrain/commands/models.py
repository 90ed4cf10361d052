"""What the commands that load a model have in common."""

from __future__ import annotations

from hbtrain.errors import ConfigError


def trusts(model: str, named: str | None) -> bool:
    """Whether code that `model` brings along may run: if it is named a second time."""
    if named not in (None, model):
        raise ConfigError(f"--trust-remote-code {named}: must be the model, {model}, or be left out")
    return named is not None


def quiet() -> None:
    """Keep the progress bars of model loading out of the output."""
    from transformers.utils import logging

    logging.disable_progress_bar()
