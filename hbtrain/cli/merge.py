"""`hbtrain merge`: one model from the weights of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import hbtrain
from hbtrain.cli.outputs import output_place, quiet
from hbtrain.errors import ConfigError, StorageError
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
    from hbtrain.modeling.merging import check_alike, in_words, merge_weights, merged_weights

    shares = merge_weights(method, len(models), weights, base is not None)
    to = output_place(output)
    names = [*models, *([] if base is None else [base])]
    folders = [model_of_run(name) for name in names]
    if isinstance(to, Path) and any(
        Path(folder).exists() and to.resolve() == Path(folder).resolve() for folder in folders
    ):
        raise ConfigError(f"--output {output} is one of the models that are merged; choose another folder")
    from hbtrain.modeling import card
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.storage import pushed

    found = [find_backbone(folder, "MODEL").name for folder in folders]
    quiet()
    encoders = [Encoder.load(folder) for folder in folders]
    check_alike(list(zip(names, encoders, strict=True)))
    own = [encoder.model for encoder in encoders]
    state = merged_weights(method, own[: len(models)], shares, None if base is None else own[-1])
    languages = [card.trained_languages(Path(folder)) for folder in found[: len(models)]]
    words = in_words(method, models, shares, base)
    known = tuple(dict.fromkeys(x for each in languages for x in each or ())) if None not in languages else ()
    merged = encoders[0]
    merged.model.load_state_dict(state)
    try:
        with pushed(to, replace=True) as folder:
            merged.save(folder, card.ModelCard(languages=known, merged_from=words, version=hbtrain.__version__))
    except OSError as error:
        raise StorageError(f"cannot write the model to {to}: {error.strerror or error}") from error
    TextConsole().print(f"merged   {words}\nmodel    {to}", soft_wrap=True)


def model_of_run(name: str) -> str:
    """The model's folder, where `name` is a run of hbtrain; else `name`."""
    own = Path(name) / "model"
    return str(own) if (own / "modules.json").is_file() else name
