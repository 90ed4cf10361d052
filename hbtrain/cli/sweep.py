"""`hbtrain sweep`: runs a recipe many times with a few keys varied, as does `python tune/sweep.py` in a checkout; and
`hbtrain sweep merge`, which varies the weights of a merge."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from hbtrain.cli.benchmark_flags import WHOLE, Benchmarked, Many
from hbtrain.cli.outputs import command_line


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
        objectives, backbones, ratio-batch, ratio-size) or a YAML file; docs/sweeps.md has the form.
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

    run_sweep(chosen, command_line(), accept_changed_inputs)


def merge(
    models: Annotated[list[str], Many],
    *,
    benchmark: Annotated[list[str], Many],
    output: str,
    weights: Annotated[list[str] | None, Many] = None,
    method: Literal["linear", "slerp", "task-arithmetic"] = "linear",
    base: str | None = None,
    benchmarked: Benchmarked = WHOLE,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
) -> None:
    """Merge models with one weight after another, evaluate every merge, and compare them.

    Nothing is trained. The same command goes on with a sweep that was cut off, and with more weights: points that are
    there are kept.

    Parameters
    ----------
    models
        Runs of hbtrain, folders of models, or hub names, as for `hbtrain merge`; RUN/initial is a run's model before
        training.
    benchmark
        As for `hbtrain evaluate`: demo, a data set by name, or FORM=PATH.
    output
        Folder or s3:// URI of the sweep: results of each point, tables, pictures and a report.
    weights
        The points, by default 0 0.25 0.5 0.75 1: of two models the weight of the first, the second having the rest;
        with task-arithmetic that of every model. Or a number for each model, with commas: 0.2,0.3,0.5.
    method
        linear, slerp or task-arithmetic, as for `hbtrain merge`.
    base
        For task-arithmetic: the model that training began with, such as RUN/initial.
    batch_size
        The most texts encoded at one time; by default 128 on CPUs, on GPUs as many as 65,536 tokens are.
    precision
        Of the transformer; by default bf16 on GPUs that have it, else as the models' files say.
    tracking_uri
        MLflow tracking URI; by default $MLFLOW_TRACKING_URI, or SQLite in the folder runs.
    experiment
        Name of the MLflow experiment, by default hbtrain.
    """
    from hbtrain.cli.evaluate import check_forms
    from hbtrain.cli.outputs import output_place, quiet
    from hbtrain.config import evaluation_from_flags
    from hbtrain.sweeps.merges import Merges, merge_points, sweep_merges

    languages = benchmarked.languages
    options = evaluation_from_flags(
        benchmarks=benchmark,
        candidates=benchmarked.candidates,
        batch_size=batch_size,
        precision=precision,
        run_depth=0,
    )
    check_forms(options, benchmarked.data_sets)
    wanted = Merges(
        models=tuple(models),
        base=base,
        method=method,
        points=merge_points(method, len(models), weights, base is not None),
        evaluation=options,
        languages=None if languages is None else tuple(languages),
        catalogue=tuple(benchmarked.data_sets),
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    to = output_place(output)
    loaded = benchmarked.load(options.benchmarks)
    from hbtrain.modeling.devices import visible_device

    quiet()
    sweep_merges(wanted, to, loaded, visible_device(), command_line())


def with_sweep_commands(app: App) -> App:
    """The app, with a sweep of a space as what it does, and of a merge as its command `merge`."""
    app.default(sweep)
    app.command(merge)
    return app


sweeps = with_sweep_commands(App(name="sweep", version_flags=[]))
