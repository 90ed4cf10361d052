"""`hbtrain search`: finds the best passages for a question."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from hbtrain.cli.outputs import quiet, trusts
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole


def search(
    model: str,
    question: str,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    top: int = 10,
    precision: Literal["fp32", "bf16"] | None = None,
    quantize: Literal["int8", "binary"] | None = None,
    rescore: int = 0,
    trust_remote_code: str | None = None,
) -> None:
    """Ask a question in any language and see the best passages across languages.

    Parameters
    ----------
    model
        A folder or a hub name.
    question
        The question, in any language.
    data
        Parallel JSON-lines files; by default the demo corpus.
    top
        How many passages to show.
    precision
        Of the transformer; by default bf16 on GPUs that have it, else as the model's files say.
    quantize
        Search passages whose vectors are kept in bytes (int8) or bits (binary) instead of in single precision.
    rescore
        For binary: the first places that are put in the order of the question's full vector.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.retrieval.quantizing import about_quantized, quality_in_words, quantization_of

    if top < 1:
        raise ConfigError(f"--top {top}: must be 1 or more")
    quantization = quantization_of(quantize, rescore)
    if quantization is not None:
        quantization.check_depth(top, "--top")
    trusted = trusts(model, trust_remote_code)
    find_backbone(model, "MODEL")
    from hbtrain.retrieval.passage_index import Searcher

    quiet()
    searcher = Searcher(model, data, precision=precision, trust_remote_code=trusted, quantization=quantization)
    hits = searcher.search(question, top)
    table = Table(title=question, caption=hits.searched)
    for column, justify in (("#", "right"), ("score", "right"), ("", "left"), ("passage", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), f"{hit.score:.3f}", hit.passage.language, hit.passage.text)
    console = TextConsole()
    console.print(table)
    if quantization is not None and hits.quality is not None:
        about = about_quantized(quantization, {"": hits.quality})
        console.print(f"note: {quality_in_words(about)}", soft_wrap=True)
