"""`hbtrain translate`: adds languages to a corpus by machine translation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from hbtrain.cli.display import ProgressBars
from hbtrain.errors import ConfigError, shown
from hbtrain.reporting.console import TextConsole

if TYPE_CHECKING:
    from hbtrain.translation.translate import Translated

Many = Parameter(consume_multiple=True)


def translate(
    source: str,
    *,
    model: str,
    from_language: Annotated[str, Parameter(name="--from")],
    to_languages: Annotated[list[str], Parameter(name="--to", consume_multiple=True)],
    output: str,
    beams: int = 4,
    batch_tokens: int = 4096,
    max_tokens: int = 256,
    precision: str = "auto",
    block_texts: int = 1024,
    actors: int = 0,
    cpus_per_actor: float = 1.0,
    use_gpu: Annotated[bool | None, Parameter(negative="--no-use-gpu")] = None,
    address: str | None = None,
    wait_s: float = 0.0,
    limit: Annotated[list[str] | None, Many] = None,
) -> None:
    """Translate a corpus: `hbtrain translate en.jsonl --model M --from en --to de fr --output en-de-fr.jsonl.gz`.

    Rows keep the languages they have and get those they lack. What fails a quality gate is left out of its row and put
    into OUTPUT's .rejects file with the reason. Interrupted, the same command goes on from the blocks it has finished.

    Parameters
    ----------
    source
        Parallel JSON lines (plain or .gz), a folder of hbtrain prepare, or demo.
    model
        A folder or a hub name: NLLB, M2M100, MADLAD or Marian, with weights as safetensors.
    from_language
        Code of the language to translate from, such as en.
    to_languages
        Codes of the languages to translate into.
    output
        The file to write, .jsonl or .jsonl.gz, in a folder that every node of the cluster sees.
    beams
        Beams of beam search; 1 is greedy.
    batch_tokens
        Source tokens that are translated in one batch, padding included.
    max_tokens
        Source tokens of a segment; longer texts are split between sentences.
    precision
        fp32, bf16, fp16, or auto: bf16 on GPUs that have it, else fp32.
    block_texts
        Texts of a block; an interruption loses unfinished blocks.
    actors
        Ray actors that hold the model; 0: one for each GPU of the cluster, or one without.
    cpus_per_actor
        CPUs of each actor.
    use_gpu
        Use a GPU for each actor; by default if the cluster has any.
    address
        A Ray cluster's address; by default $RAY_ADDRESS, or a new local cluster.
    wait_s
        Seconds to wait for nodes where the cluster has too few for the actors.
    limit
        Quality gates with other limits, such as copied=0.5 longest=3; language=0 leaves the identifier out.
    """
    from hbtrain.cli.outputs import local_output, quiet
    from hbtrain.translation import translate as translation
    from hbtrain.translation.ray_pipeline import Pool
    from hbtrain.translation.translator import Generation

    quiet()
    wanted = translation.Translation(
        source=source,
        model=model,
        from_language=from_language,
        to_languages=tuple(to_languages),
        output=local_output(output),
        block_texts=block_texts,
        generation=Generation(beams, batch_tokens, max_tokens, precision),
        limits=_limits(limit or []),
        pool=Pool(actors, cpus_per_actor, use_gpu, address, wait_s),
    )
    console = TextConsole()
    with ProgressBars(console) as bars:
        translated = translation.translate(wanted, bars.tell)
    _show(console, translated)


def _limits(given: list[str]) -> Any:
    from dataclasses import asdict

    from hbtrain.translation.gates import Limits

    kinds = {name: type(value) for name, value in asdict(Limits()).items()}
    values: dict[str, float] = {}
    for pair in given:
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise ConfigError(f"--limit {pair}: must be NAME=NUMBER with one of {', '.join(kinds)}")
        try:
            values[name] = kinds[name](value)
        except ValueError as error:
            raise ConfigError(f"--limit {shown(pair)}: {shown(value)} is no {kinds[name].__name__}") from error
    return Limits(**values)  # type: ignore[arg-type]  # each value has the type of its field


def _show(console: TextConsole, translated: Translated) -> None:
    from hbtrain.translation.gates import REASONS

    counts = translated.manifest["languages"]
    reasons = [reason for reason in REASONS if any(reason in own["rejected"] for own in counts.values())]
    table = Table(box=None)
    for column in ("language", "texts", "kept", "share", *reasons):
        table.add_column(column, justify="left" if column == "language" else "right")
    for language, own in counts.items():
        share = f"{own['kept'] / own['texts']:.1%}" if own["texts"] else "-"
        rejected = [f"{own['rejected'].get(reason, 0):,}" for reason in reasons]
        table.add_row(language, f"{own['texts']:,}", f"{own['kept']:,}", share, *rejected)
    console.print(table)
    manifest, outputs = translated.manifest, translated.outputs
    console.print(f"{manifest['rows']:,} rows, {manifest['texts']:,} distinct texts")
    what = "translated" if translated.fresh else "was there, from the same source, model and settings:"
    console.print(f"\n{what}  {outputs.rows}", soft_wrap=True)
    console.print(f"rejects     {outputs.rejects}", soft_wrap=True)
