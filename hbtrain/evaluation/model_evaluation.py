"""Evaluating a model by its name, as `hbtrain evaluate` does and as Python calls it: `hbtrain.evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbtrain.config import Config, EvaluationConfig, override
from hbtrain.errors import ConfigError, DataError, StorageError
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import ListTaker, evaluate_all
from hbtrain.evaluation.judged import Judging
from hbtrain.evaluation.out_of_domain import domain_metrics, domain_scores
from hbtrain.evaluation.rankers import TextEncoder, check_search, search_options
from hbtrain.evaluation.results import save_evaluation
from hbtrain.evaluation.summary import Evaluation
from hbtrain.evaluation.tables import bias_table, scores_table
from hbtrain.modeling.encoder import Side
from hbtrain.reporting.html import html_page
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.storage import RemoteError, check_writable, place, pushed

if TYPE_CHECKING:
    from hbtrain.corpus.data_sets import Notify
    from hbtrain.modeling.encoder import Encoder


class Evaluations(Sequence[Evaluation]):
    """The scores of one model on one or more benchmarks, by their number or name; a notebook shows their tables."""

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        model: str,
        *,
        prompts: Mapping[Side, str] | None = None,
        in_domain: str | None = None,
        average_with_initial: float = 0.0,
    ) -> None:
        """See `save_evaluation` for the arguments."""
        self.model = model
        self._evaluations = tuple(evaluations)
        self._prompts = prompts
        self._in_domain = in_domain
        self._share = average_with_initial
        self._folder: str | None = None

    def __len__(self) -> int:
        return len(self._evaluations)

    def __getitem__(self, which: Any) -> Any:
        """The evaluation of that number, or on the benchmark of that name."""
        if not isinstance(which, str):
            return self._evaluations[which]
        for evaluation in self._evaluations:
            if evaluation.benchmark == which:
                return evaluation
        raise KeyError(f"{which}: there are {', '.join(one.benchmark for one in self._evaluations)}")

    @property
    def metrics(self) -> dict[str, float]:
        """{`<benchmark>/<setting>/<metric>`: score}, also by language, as in `metrics.json`."""
        own = {key: value for one in self._evaluations for key, value in one.metrics.items()}
        return own | domain_metrics(domain_scores(self._evaluations, self._in_domain))

    def save(self, folder: str | PathLike[str]) -> Evaluations:
        """Write the files of `hbtrain evaluate --output` into a folder or an s3:// URI; `hbtrain.compare` reads them.

        Raises:
            StorageError: it cannot be written.
        """
        with _written(folder) as files:
            self.write(files)
        self._folder = str(place(fspath(folder)))
        return self

    def write(self, folder: Path) -> None:
        """Write the files into a folder on this machine."""
        save_evaluation(
            self._evaluations,
            folder,
            self.model,
            prompts=self._prompts,
            in_domain=self._in_domain,
            average_with_initial=self._share,
        )

    def __fspath__(self) -> str:
        """The folder that `save` wrote last, so that `hbtrain.compare` takes the evaluations themselves."""
        if self._folder is None:
            raise DataError(f"the scores of {self.model} are in no folder: give evaluate() an output, or save() them")
        return self._folder

    def _repr_html_(self) -> str:
        tables = [table for one in self._evaluations for table in (scores_table(one), bias_table(one)) if table]
        notes = [note for one in self._evaluations for note in one.notes]
        return html_page(tables, notes, self.model)

    def __repr__(self) -> str:
        return f"Evaluations of {self.model} on {', '.join(one.benchmark for one in self._evaluations)}"


def evaluate_model(  # noqa: PLR0913 - keywords, each a choice of its own
    model: str | PathLike[str] | TextEncoder,
    benchmarks: str | Benchmark | Sequence[str | Benchmark],
    *,
    output: str | PathLike[str] | None = None,
    languages: Sequence[str] | None = None,
    trained_languages: Sequence[str] | None = None,
    catalogue: Sequence[str] = (),
    prompts: Mapping[Side, str] | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    notify: Notify | None = None,
    **options: Any,
) -> Evaluations:
    """Evaluate a model on benchmarks, as `hbtrain evaluate` does: `hbtrain.evaluate("intfloat/e5-base", "xquad-r")`.

    Args:
        model: a folder, an s3:// URI or a hub name; the outcome of `hbtrain.train`; or an encoder.
        benchmarks: `demo`, a data set by name, or `FORM=PATH`; one or several, also loaded ones.
        output: folder or s3:// URI for the files of `hbtrain evaluate --output`.
        languages: only these.
        trained_languages: that the model was trained on; None: as its card says.
        catalogue: files that describe data sets of your own.
        prompts: {side: text} to put before texts, in place of the model's own.
        device: such as `cpu` or `cuda:1`; by default all GPUs that the process sees, or its CPU.
        trust_remote_code: whether Python code that the model brings along may run.
        notify: told which data sets are fetched.
        options: other keys of `evaluation` (see `hbtrain keys`), such as `batch_size`, `candidates` or `index`.

    Raises:
        HbtrainError: what is wrong with the model, the benchmarks or the options, in one line.
    """
    asked = [benchmarks] if isinstance(benchmarks, str | Benchmark) else list(benchmarks)
    named = [one for one in asked if isinstance(one, str)]
    given = {f"evaluation.{key}": value for key, value in options.items()}
    chosen = override(Config(), {**given, "evaluation.benchmarks": named}).evaluation
    if not asked:
        raise ConfigError("no benchmark is named; give demo, a data set by name, or FORM=PATH")
    check_search(chosen)
    if output is not None:
        check_writable(place(fspath(output)), "output")
    from hbtrain.modeling import card
    from hbtrain.modeling.backbone import find_backbone
    from hbtrain.modeling.devices import evaluation_precision, visible_devices
    from hbtrain.modeling.encoder import Encoder

    name, here = "", None
    if isinstance(model, str | PathLike):
        name = fspath(getattr(model, "model", model))
        here = Path(find_backbone(name, "model").name)
    loaded = _loaded(asked, chosen, languages, catalogue, notify)
    devices = ("cpu",) if chosen.actors else (device,) if device else visible_devices()
    if here is None:
        encoder: Any = model
        name, devices = str(getattr(getattr(model, "origin", None), "name_or_path", type(model).__name__)), devices[:1]
    else:
        encoder = Encoder.load(
            name,
            device=devices[0],
            trust_remote_code=trust_remote_code,
            prompts=prompts,
            precision=evaluation_precision(chosen.precision, devices[0]),
        )
    with nullcontext() if output is None else _written(output) as folder:
        found = evaluate_encoder(
            encoder,
            loaded,
            chosen,
            search_options(chosen, devices=devices),
            model=name,
            trained_languages=trained_languages or (None if here is None else card.trained_languages(here)),
            average_with_initial=0.0 if here is None else card.average_with_initial(here),
            trec_runs=None if folder is None else folder / "runs",
        )
    return found if output is None else found.save(output)


def evaluate_encoder(  # noqa: PLR0913 - keywords, each a choice of its own
    encoder: Encoder,
    benchmarks: Sequence[Benchmark],
    options: EvaluationConfig,
    search: SearchOptions,
    *,
    model: str,
    trained_languages: Sequence[str] | None = None,
    average_with_initial: float = 0.0,
    trec_runs: Path | None = None,
    takers: Sequence[ListTaker] = (),
) -> Evaluations:
    """Evaluate an encoder, on all devices of `search`, by what is settled before.

    Args:
        encoder: on the first of the devices.
        benchmarks: loaded.
        options: how to evaluate.
        search: how collections are searched.
        model: name or path of the model, for results.
        trained_languages: see `evaluate_all`.
        average_with_initial: the share of the weights before training in the model's.
        trec_runs: folder of run files, or None for none.
        takers: take the lists of the best candidates too.
    """
    from hbtrain.retrieval.encoding import DevicesEncoder

    found = evaluate_all(
        encoder if len(search.devices) == 1 else DevicesEncoder(encoder, search.devices),
        benchmarks,
        options,
        search,
        trained_languages=trained_languages,
        trec_runs=trec_runs,
        system=model,
        takers=takers,
    )
    return Evaluations(
        found,
        model,
        prompts=getattr(encoder, "prefixes", None),
        in_domain=options.in_domain,
        average_with_initial=average_with_initial,
    )


def _loaded(
    asked: Sequence[str | Benchmark],
    options: EvaluationConfig,
    languages: Sequence[str] | None,
    catalogue: Sequence[str],
    notify: Notify | None,
) -> list[Benchmark]:
    """First the benchmarks that are named, then those that are loaded already."""
    by_text = load_benchmarks(
        options.benchmarks,
        languages,
        options.candidates,
        judging=Judging.of(options),
        catalogue=catalogue,
        notify=notify,
    )
    return [*by_text, *(one for one in asked if isinstance(one, Benchmark))]


@contextmanager
def _written(to: str | PathLike[str]) -> Iterator[Path]:
    """A local folder whose content is in `to` at the end. Raises StorageError."""
    try:
        with pushed(place(fspath(to))) as folder:
            yield folder
    except RemoteError as error:
        raise StorageError(f"cannot write results to {fspath(to)}: {error.strerror}") from error
