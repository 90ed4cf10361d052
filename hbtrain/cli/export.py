"""`hbtrain export`: a model for ONNX Runtime or OpenVINO, with what that costs."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from hbtrain.cli.outputs import output_place, quiet, said_aside
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole


def export(
    model: str,
    *,
    to: Literal["onnx", "openvino"],
    output: str,
    quantize: Literal["int8"] | None = None,
    benchmark: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    languages: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
) -> None:
    """Export a model to ONNX Runtime or OpenVINO: `hbtrain export runs/x --to onnx --output exported`.

    Needs the packages of the extra: pip install 'hbtrain[export]'.

    Parameters
    ----------
    model
        A run of hbtrain, the folder of a model, or a hub name.
    to
        What is to compute it.
    output
        Folder or s3:// URI of the exported model; a model that is there is replaced.
    quantize
        int8: keep its weights in bytes.
    benchmark
        Benchmarks, as in `hbtrain evaluate`, on which the model is evaluated before and after.
    languages
        Of the benchmarks, only these languages.
    """
    from hbtrain.modeling.exporting import FILES, check_packages, export_model

    check_packages(to)
    if languages and not benchmark:
        raise ConfigError("--languages: is for --benchmark; add it, or leave --languages out")
    from hbtrain.evaluation.benchmarks import load_benchmarks
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.modeling.merging import model_of_run
    from hbtrain.reporting.text import byte_size
    from hbtrain.storage import pushed

    place = output_place(output)
    found = find_backbone(model_of_run(model), "MODEL").name
    loaded = load_benchmarks(benchmark, languages, notify=said_aside) if benchmark else []
    from hbtrain.evaluation.evaluate import evaluate
    from hbtrain.evaluation.tables import before_after_table
    from hbtrain.modeling.encoder import Encoder

    quiet()
    encoder = Encoder.load(found, precision="fp32")
    before = [evaluate(encoder, one) for one in loaded]
    with pushed(place, replace=True) as folder:
        exported, cosine = export_model(encoder, folder, to, quantize is not None)
        size = sum(file.stat().st_size for file in (folder / FILES[to]).parent.iterdir())
        after = [evaluate(exported, one) for one in loaded]
    console = TextConsole()
    for one, other in zip(before, after, strict=True):
        console.print(before_after_table(one, other))
    console.print(f"transformer {byte_size(size)}; cosine of its vectors with the model's: {cosine:.4f} at least")
    console.print(f"\nexported {place}", soft_wrap=True)
