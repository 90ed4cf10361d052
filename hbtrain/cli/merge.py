"""`hbtrain merge`: one model from the weights of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import hbtrain
from hbtrain.cli.outputs import output_place, quiet
from hbtrain.errors import StorageError
from hbtrain.reporting.console import TextConsole


def merge(
    models: Annotated[list[str], Parameter(consume_multiple=True)],
    *,
    output: str,
    weights: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    method: Literal["linear", "slerp", "task-arithmetic"] = "linear",
    base: str | None = None,
) -> None:
    """Merge the weights of models that were trained from the same one, such as a monolingual and a cross-lingual run.

    Parameters
    ----------
    models
        Runs of hbtrain, folders of models, or hub names.
    output
        Folder or s3:// URI of the merged model; a model that is there is replaced.
    weights
        One for each model; by default all equal. They add up to 1, but for task-arithmetic.
    method
        linear: the weighted mean. slerp: along the arc between two models. task-arithmetic: base plus what each model
        has learned beyond it, times its weight.
    base
        For task-arithmetic: the model that training began with, such as RUN/initial.
    """
    from hbtrain.modeling.card import ModelCard
    from hbtrain.modeling.merging import Models, in_words, merge_weights
    from hbtrain.storage import pushed

    shares = merge_weights(method, len(models), weights, base is not None)
    to = output_place(output)
    quiet()
    loaded = Models.load(models, base, to if isinstance(to, Path) else None)
    words = in_words(method, models, shares, base)
    merged = loaded.encoders[0]
    merged.model.load_state_dict(loaded.merged(method, shares))
    try:
        with pushed(to, replace=True) as folder:
            card = ModelCard(languages=loaded.languages or (), merged_from=words, version=hbtrain.__version__)
            merged.save(folder, card)
    except OSError as error:
        raise StorageError(f"cannot write the model to {to}: {error.strerror or error}") from error
    TextConsole().print(f"merged   {words}\nmodel    {to}", soft_wrap=True)
