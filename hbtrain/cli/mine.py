"""`hbtrain mine`: finds hard negatives for the rows of parallel sources."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hbtrain.cli.display import ProgressBars
from hbtrain.cli.outputs import output_place, quiet, trusts, written_file
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.table import facts


def mine(
    model: str,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    output: str,
    negatives: int = 8,
    languages: str = "same",
    margin: float = 0.05,
    margin_kind: str = "absolute",
    skip_top: int = 0,
    depth: int = 100,
    batch_size: int = 128,
    trust_remote_code: str | None = None,
) -> None:
    """Find hard negatives with an earlier model: `hbtrain mine runs/x/model --data a.jsonl --output b.jsonl.gz`.

    The output is the input with negatives in each row, every one in all languages that it has; train on it with
    --data.sources b.jsonl.gz --loss.hard_negatives 4.

    Parameters
    ----------
    model
        A folder or a hub name.
    data
        Parallel JSON-lines files (plain or .gz); the passages of all of them are candidates.
    output
        File to write; compressed if its name ends in .gz.
    negatives
        Negatives of a row, at most.
    languages
        Where a query's candidates are sought: same (the query's language), other (all the others) or both.
    margin
        A candidate that scores above the positive less this is dropped, as it may well be an answer.
    margin_kind
        absolute (a difference in score) or relative (a share of the positive's score).
    skip_top
        How many of each row's best candidates to leave out.
    depth
        Candidates that are looked at for each query, the row's own passages among them.
    batch_size
        Texts encoded at one time.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.config import evaluation_from_flags
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.retrieval.mining import Miner, MiningOptions, check_sources, write_mined
    from hbtrain.storage.files import atomic_output

    options = MiningOptions(negatives, languages, margin, margin_kind, skip_top, depth)
    batch_size = evaluation_from_flags(batch_size=batch_size).batch_size
    trusted = trusts(model, trust_remote_code)
    find_backbone(model, "MODEL")
    to = output_place(output, is_file=True)
    corpus = ParallelCorpus.open(data)
    check_sources(corpus)
    from hbtrain.modeling.devices import visible_device
    from hbtrain.modeling.encoder import Encoder

    quiet()
    console = TextConsole()
    with ProgressBars(console) as bars:
        encoder = Encoder.load(model, device=visible_device(), trust_remote_code=trusted)
        miner = Miner(encoder, corpus, options, batch_size, bars.tell)
        with written_file(to) as file, atomic_output(file, f"--output {to}") as stream:
            summary = write_mined(miner, corpus, data, stream)
    table = facts(
        [
            ("passages", f"{len(miner.pool):,} in {', '.join(corpus.languages)}"),
            ("rows", f"{summary.rows:,}"),
            ("negatives per row", f"{summary.negatives / summary.rows:.2f}"),
            ("dropped by margin", f"{summary.too_close:,}"),
            ("rows without any", f"{summary.rows_without:,}"),
        ]
    )
    console.print(table)
    console.print(f"\nmined  {to}", soft_wrap=True)
