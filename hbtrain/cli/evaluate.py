"""`hbtrain evaluate`: evaluates any model on benchmarks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hbtrain.cli.benchmark_flags import AS_THEY_ARE, WHOLE, Benchmarked, Judged, Many
from hbtrain.cli.outputs import check_cluster, local_output, output_place, quiet, trusts, written
from hbtrain.cli.probing import UNPROBED, Probed
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hbtrain.config import EvaluationConfig
    from hbtrain.evaluation.mteb_scores import MtebScores
    from hbtrain.evaluation.probes import ProbeScores
    from hbtrain.evaluation.summary import Evaluation
    from hbtrain.modeling.devices import Device
    from hbtrain.modeling.encoder import Encoder, Side
    from hbtrain.retrieval.collection_search import SearchOptions
    from hbtrain.retrieval.manifest import StoreType
    from hbtrain.storage import Place


@dataclass(frozen=True, kw_only=True)
class SearchFlags:
    """How candidates are searched.

    Attributes:
        index: Search the best --depth with this index of FAISS (Flat, IVF4096,Flat, HNSW32, IVF4096,PQ64, ...) over
            embeddings kept on disk, for corpora that do not fit into memory; by default all ranks are exact.
        index_parameters: Parameters of the index's search, such as nprobe=16 or efSearch=64.
        depth: Candidates of a query that the index finds.
        actors: Ray actors that encode, and then rank or index a part of the candidates each; 0: this process.
        half_precision: Keep the embeddings on disk in half precision.
        quantize: Rank candidates by vectors in bytes (int8) or bits (binary); their recall against full ones is told.
        rescore: For binary: the first places of a ranking that are put in the order of full query vectors.
        embeddings: An s3:// URI below which the embeddings are kept as well: no other machine encodes them again.
        address: Address of the actors' Ray cluster; by default $RAY_ADDRESS, or a new one on this machine.
        wait_s: Seconds to wait for nodes where the cluster has too few for the actors.
    """

    index: str | None = None
    index_parameters: str = ""
    depth: int = 100
    actors: int = 0
    half_precision: bool = False
    quantize: Literal["int8", "binary"] | None = None
    rescore: int = 0
    embeddings: str | None = None
    address: str | None = None
    wait_s: float = 0.0

    def options(self, catalogue: Sequence[str], **others: object) -> tuple[EvaluationConfig, SearchOptions]:
        """The options of the evaluation, with `others` from other flags, and those of its search.

        `catalogue` are files of the user's own data sets.

        Raises:
            ConfigError: values that are not allowed, or options that exclude each other.
            StorageError: the place of embeddings cannot be written.
        """
        from hbtrain.config import EvaluationConfig, evaluation_from_flags
        from hbtrain.evaluation.rankers import check_search, search_options
        from hbtrain.retrieval.quantizing import quantization_of

        own = {name: value for name, value in asdict(self).items() if name in EvaluationConfig.model_fields}
        options = evaluation_from_flags(**own, **others)
        if self.half_precision and not options.on_disk:
            raise ConfigError(
                "--half-precision is for embeddings on disk; add --actors, or --index Flat or another index"
            )
        check_cluster(self.actors, self.address, self.wait_s)
        check_forms(options, catalogue)
        check_search(options, flags=True)
        quantization = quantization_of(self.quantize, self.rescore)
        if quantization is not None:
            quantization.check_depth(*_listed(options))
        dtype: StoreType = "float16" if self.half_precision else "float32"
        return options, search_options(
            options, dtype, address=self.address, wait_s=self.wait_s, quantization=quantization
        )


Searched = Annotated[SearchFlags, Parameter(name="*")]
EXACT = SearchFlags()
"""By default all ranks are exact, and computed in this process."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingFlags:
    """How texts are embedded.

    Attributes:
        query_prompt: Text put before every query, in place of the model's own prompt.
        passage_prompt: Text put before every passage, in place of the model's own prompt.
        batch_size: The most texts encoded at one time; by default 128 on CPUs, on GPUs as many as 65,536 tokens are.
        precision: Of the transformer; by default bf16 on GPUs that have it, else as the model's files say.
    """

    query_prompt: str | None = None
    passage_prompt: str | None = None
    batch_size: int | None = None
    precision: Literal["fp32", "bf16"] | None = None

    def encoder(self, model: str, device: Device, trusted: bool) -> Encoder:
        """The model, loaded; `trusted`: whether Python code that it brings along may run."""
        from hbtrain.modeling.devices import evaluation_precision
        from hbtrain.modeling.encoder import Encoder

        quiet()
        given: dict[Side, str | None] = {"query": self.query_prompt, "passage": self.passage_prompt}
        prompts = {side: prompt for side, prompt in given.items() if prompt is not None}
        precision = evaluation_precision(self.precision, device)
        return Encoder.load(
            model, device=device, trust_remote_code=trusted, prompts=prompts or None, precision=precision
        )


Embedded = Annotated[EmbeddingFlags, Parameter(name="*")]
AS_SAVED = EmbeddingFlags()
"""With the model's own prompts."""


def evaluate(
    model: str,
    *,
    benchmark: Annotated[list[str], Many],
    output: str,
    data: str | None = None,
    benchmarked: Benchmarked = WHOLE,
    trained_languages: Annotated[list[str] | None, Many] = None,
    in_domain: str | None = None,
    embedded: Embedded = AS_SAVED,
    searched: Searched = EXACT,
    run_depth: int = 10,
    judged: Judged = AS_THEY_ARE,
    probed: Probed = UNPROBED,
    mteb_results: str | None = None,
    trust_remote_code: str | None = None,
) -> None:
    """Evaluate any sentence-transformers or Hugging Face model: `hbtrain evaluate MODEL --benchmark xquad-r`.

    Benchmarks of the catalogue (`hbtrain data list`) are fetched by their names.

    Parameters
    ----------
    model
        A folder, an s3:// URI or a hub name.
    benchmark
        demo; a data set by name, such as xquad-r; or FORM=PATH with your own data: xquad-r, mlqa-r, lareqa (any folder
        of that form), squad (SQuAD files by language), miracl, mr-tydi, tatoeba, beir (a folder per language), mteb,
        mteb-parallel (its layout on the hub), belebele, ciral, parallel (a parallel JSON-lines file). PATH may be an
        s3://, gs:// or hf:// URI.
    output
        Folder or s3:// URI for metrics.json, scores.csv, per_query.parquet, about.json, heat maps and runs.
    data
        Folder or file of the benchmark, where there is one, in place of FORM=PATH.
    trained_languages
        Languages the model was trained on, to tell languages seen and unseen apart; models of hbtrain state them.
    in_domain
        The benchmark, or a domain of one as BENCHMARK@DOMAIN, that MRR on the others is compared with.
    run_depth
        Passages of a query in the run files (TREC format, OUTPUT/runs); 0: no run files.
    mteb_results
        Folder to which the results are also written in mteb's form, for benchmarks that are tasks of mteb.
    trust_remote_code
        MODEL again, if Python code that it brings along may run.
    """
    from hbtrain.evaluation.judged import Judging
    from hbtrain.modeling.backbone import find_backbone

    trusted = trusts(model, trust_remote_code)
    options, search = searched.options(
        benchmarked.data_sets,
        benchmarks=_with_data(benchmark, data),
        candidates=benchmarked.candidates,
        in_domain=in_domain,
        batch_size=embedded.batch_size,
        precision=embedded.precision,
        run_depth=run_depth,
        **asdict(judged),
    )
    asked, lexicons = probed.read()
    to = output_place(output)
    if isinstance(to, Path):
        output_place(str(to / "runs"))  # written while benchmarks are still evaluated
    mteb = None if mteb_results is None else _mteb(mteb_results, options, searched, benchmarked.data_sets)
    here = find_backbone(model, "MODEL").name
    benchmarks = benchmarked.load(options.benchmarks, judging=Judging.of(options), in_domain=in_domain)
    from hbtrain.evaluation.model_evaluation import evaluate_encoder
    from hbtrain.evaluation.probes import Probes, check_probes, save_probes
    from hbtrain.modeling import card
    from hbtrain.modeling.devices import visible_devices

    check_probes(asked, benchmarks)
    devices = ("cpu",) if options.actors else visible_devices()  # the actors compute, each where it is
    encoder = embedded.encoder(model, devices[0], trusted)
    known = trained_languages or card.trained_languages(Path(here))
    search, share = replace(search, devices=devices), card.average_with_initial(Path(here))
    probes = Probes(asked, encoder, lexicons)
    with written(to) as folder:
        evaluations = evaluate_encoder(
            encoder,
            benchmarks,
            options,
            search,
            model=model,
            trained_languages=known,
            average_with_initial=share,
            trec_runs=folder / "runs",
            takers=[*([] if mteb is None else [mteb]), *([probes] if asked else [])],
        )
        evaluations.write(folder)
        if asked:
            save_probes(probes.found, folder / "probes.csv")
    _show(evaluations, in_domain, to, probes.found)
    if mteb is not None and mteb_results is not None:
        _save_for_mteb(mteb, evaluations, encoder, model, Path(mteb_results))


def _mteb(folder: str, options: EvaluationConfig, searched: SearchFlags, more: list[str]) -> MtebScores:
    """What scores as mteb does. Raises ConfigError where it would do otherwise, StorageError where none can write."""
    from hbtrain.evaluation.benchmarks import parse_benchmarks
    from hbtrain.evaluation.mteb_scores import MtebScores, mteb_tasks

    output_place(str(local_output(folder, "--mteb-results")), option="--mteb-results")
    names = [spec.name for spec in parse_benchmarks(options.benchmarks, more)]
    if not any(name in mteb_tasks() for name in names):
        known = ", ".join(mteb_tasks())
        raise ConfigError(f"--mteb-results: no task of mteb has the data of {', '.join(names)}; those of {known} have")
    changed = searched.half_precision or searched.quantize is not None or options.ignore_identical_ids
    if options.index not in (None, "Flat") or changed:
        raise ConfigError(
            "--mteb-results: these tasks of mteb rank all documents exactly, in single precision; leave out "
            "--half-precision, --quantize, --ignore-identical-ids, and any --index but Flat"
        )
    return MtebScores()


def _save_for_mteb(
    mteb: MtebScores, evaluations: Sequence[Evaluation], encoder: Encoder, model: str, folder: Path
) -> None:
    from hbtrain.evaluation.mteb_results import save_mteb_results

    files = save_mteb_results(mteb, evaluations, encoder, model, folder)
    console = TextConsole()
    for note in mteb.notes:
        console.print(f"note: mteb's {note}", soft_wrap=True)
    for file in files:
        console.print(f"mteb     {file}", soft_wrap=True)


def check_forms(options: EvaluationConfig, catalogue: Sequence[str]) -> None:
    """Check that options for some forms of benchmarks have one to apply to."""
    from hbtrain.config.schema import FLAGS, called
    from hbtrain.evaluation.benchmarks import JUDGED, has_documents, has_sentences, parse_benchmarks

    specs = parse_benchmarks(options.benchmarks, catalogue)
    given = options.candidates
    if given != "sentence" and not any(map(has_sentences, specs)):
        raise ConfigError(f"--candidates {given}: only xquad-r, mlqa-r and lareqa have sentences; leave it out")
    for name in ("ignore_identical_ids", "allow_missing_documents"):
        if getattr(options, name) and not any(map(has_documents, specs)):
            raise ConfigError(f"{called(name, FLAGS)}: only for {', '.join(sorted(JUDGED))}; leave it out")


def _listed(options: EvaluationConfig) -> tuple[int, str]:
    """The length of the longest lists, and the option that it follows from."""
    from hbtrain.evaluation.metrics import FIRST_PLACES

    if options.index is not None:
        return options.depth, "--depth"
    return max(options.run_depth, FIRST_PLACES), "--run-depth"


def _with_data(benchmarks: list[str], data: str | None) -> list[str]:
    if data is None:
        return benchmarks
    if len(benchmarks) > 1 or "=" in benchmarks[0]:
        raise ConfigError(f"--data {data} is for one benchmark without a path; write FORM=PATH for {benchmarks[-1]}")
    return [f"{benchmarks[0]}={data}"]


def _show(
    evaluations: Sequence[Evaluation], in_domain: str | None, output: Place, probed: Sequence[ProbeScores]
) -> None:
    from hbtrain.evaluation.out_of_domain import domain_scores
    from hbtrain.evaluation.probes import probe_table
    from hbtrain.evaluation.tables import domain_table, evaluation_table, language_table
    from hbtrain.retrieval.quantizing import quality_in_words

    console = TextConsole()
    for evaluation in evaluations:
        notes = list(evaluation.notes)
        if "recall_queries" in (quantized := evaluation.search.get("quantized", {})):
            notes.append(f"{evaluation.benchmark}: {quality_in_words(quantized)}")
        for note in notes:
            console.print(f"note: {note}", soft_wrap=True)
        console.print(evaluation_table(evaluation))
        if (bias := language_table(evaluation)) is not None:
            console.print(bias)
        if reason := evaluation.search.get("device_note"):
            index, device = evaluation.search["search"], evaluation.search["device"]
            console.print(f"note: the index {index} was on the {device}: {reason}", style="yellow", soft_wrap=True)
    scores = domain_scores(evaluations, in_domain)
    if in_domain is not None or any("@" in score.name for score in scores):
        console.print(domain_table(scores, in_domain))
    if probed:
        console.print(probe_table(probed))
    console.print(f"\nresults  {output}", soft_wrap=True)
