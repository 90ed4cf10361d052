"""`hbtrain mine`: finds hard negatives for the rows of parallel sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hbtrain.cli.display import ProgressBars
from hbtrain.cli.outputs import check_cluster, output_place, quiet, trusts, written_file
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.table import facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hbtrain.config import EvaluationConfig
    from hbtrain.modeling.devices import Device
    from hbtrain.retrieval.encoding import StoredEncoder
    from hbtrain.retrieval.mining import MiningSummary
    from hbtrain.retrieval.rescoring import PairScorer


@dataclass(frozen=True, kw_only=True)
class MiningFlags:
    """How texts are embedded and searched.

    Attributes:
        index: Find candidates with this index of FAISS for each language (IVF4096,Flat, HNSW32, ...); by default they
            are found exactly.
        index_parameters: Parameters of the index's search, such as nprobe=16 or efSearch=64.
        actors: Ray actors that encode, and then search a part of the passages each; 0: this process.
        address: Address of the actors' Ray cluster; by default $RAY_ADDRESS, or a new one on this machine.
        wait_s: Seconds to wait for nodes where the cluster has too few for the actors.
        batch_size: The most texts encoded at one time; by default 128 on CPUs, on GPUs as many as 65,536 tokens are.
        precision: Of the transformers; by default bf16 on GPUs that have it, else as the models' files say.
    """

    index: str | None = None
    index_parameters: str = ""
    actors: int = 0
    address: str | None = None
    wait_s: float = 0.0
    batch_size: int | None = None
    precision: Literal["fp32", "bf16"] | None = None

    def options(self) -> EvaluationConfig:
        """The flags, checked as those of an evaluation are.

        Raises:
            ConfigError: values that are not allowed, or that exclude each other.
        """
        from hbtrain.config import evaluation_from_flags
        from hbtrain.evaluation.rankers import check_search

        options = evaluation_from_flags(
            index=self.index,
            index_parameters=self.index_parameters,
            actors=self.actors,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        check_cluster(self.actors, self.address, self.wait_s)
        check_search(options, flags=True)
        return options


Searched = Annotated[MiningFlags, Parameter(name="*")]
EXACT = MiningFlags()
"""Exactly, in this process."""


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
    rescore: str | None = None,
    searched: Searched = EXACT,
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
    rescore
        A second model that scores what MODEL finds: a cross-encoder, or a model like MODEL. Its scores then decide
        order and margin, and are written into the rows.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.retrieval.mining import Miner, MiningOptions, check_sources, write_mined
    from hbtrain.storage.files import atomic_output

    chosen = MiningOptions(negatives, languages, margin, margin_kind, skip_top, depth)
    options = searched.options()
    trusted = trusts(model, trust_remote_code)
    find_backbone(model, "MODEL")
    if rescore is not None:
        find_backbone(rescore, "--rescore")
    to = output_place(output, is_file=True)
    corpus = ParallelCorpus.open(data)
    check_sources(corpus)
    from hbtrain.evaluation.rankers import search_options
    from hbtrain.modeling.devices import visible_devices
    from hbtrain.retrieval.encoding import load_on

    quiet()
    console = TextConsole()
    devices = ("cpu",) if options.actors else visible_devices()  # the actors compute, each where it is
    search = search_options(options, address=searched.address, wait_s=searched.wait_s, devices=devices)
    with ProgressBars(console) as bars:
        second = None if rescore is None else _rescorer(rescore, options, devices)
        encoder = load_on(devices, model, options.precision, trusted)
        with (
            Miner(encoder, corpus, chosen, search, bars.tell, second) as miner,
            written_file(to) as file,
            atomic_output(file, f"--output {to}") as stream,
        ):
            summary = write_mined(miner, corpus, data, stream)
    console.print(_mined(summary, f"{len(miner.pool):,} in {', '.join(corpus.languages)}"))
    console.print(f"\nmined  {to}", soft_wrap=True)


def _mined(summary: MiningSummary, passages: str) -> Table:
    return facts(
        [
            ("passages", passages),
            ("rows", f"{summary.rows:,}"),
            ("negatives per row", f"{summary.negatives / summary.rows:.2f}"),
            ("dropped by margin", f"{summary.too_close:,}"),
            ("rows without any", f"{summary.rows_without:,}"),
        ]
    )


def _rescorer(name: str, options: EvaluationConfig, devices: Sequence[Device]) -> StoredEncoder | PairScorer:
    """The model that scores candidates: a cross-encoder if it is one, else one that embeds.

    Raises:
        ModelError: it cannot be loaded, or gives no score.
    """
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.modeling.cross_encoder import CrossScorer
    from hbtrain.modeling.model_files import is_cross_encoder
    from hbtrain.retrieval.encoding import load_on

    found = find_backbone(name, "--rescore")
    if is_cross_encoder(found.name, found.is_sentence_transformer):
        return CrossScorer.load(name, options.precision, devices[0])
    return load_on(devices, name, options.precision)
