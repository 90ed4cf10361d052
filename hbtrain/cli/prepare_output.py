"""What all `hbtrain prepare` commands share: the output option, progress, and the summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole

if TYPE_CHECKING:
    from hbtrain.corpus.prepare.prepare import Prepared
    from hbtrain.corpus.readers.items import Reader


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """Options of every format.

    Attributes:
        output: Folder of the corpus; it must not exist yet, or hold the same corpus.
        skip_bad_rows: Leave bad rows out; each is counted and listed in drops.jsonl.
        limit: Only the first so many rows, to try out what comes after.
        catalogue: Files that describe data sets of your own, which hub:NAME as the input then finds.
    """

    output: str
    skip_bad_rows: bool = False
    limit: int | None = None
    catalogue: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None


Common = Annotated[Output, Parameter(name="*")]


def write_corpus(
    open_reader: Callable[[list[str]], Reader], inputs: list[str], common: Output, of_files: bool = False
) -> None:
    """Prepare the corpus of a reader, show progress, and print a summary.

    Args:
        open_reader: gives the reader of paths and URLs.
        inputs: paths, URLs, or a data set by name alone, which is fetched first.
        common: options of every format.
        of_files: whether the reader takes files; else a data set's folder is given to it.
    """
    from hbtrain.cli.outputs import local_output
    from hbtrain.corpus.prepare.prepare import prepare

    if common.limit is not None and common.limit < 1:
        raise ConfigError(f"--limit {common.limit}: must be 1 or more")
    output = local_output(common.output)
    console = TextConsole()
    paths, came_from = _found(inputs, common.catalogue or [], of_files)
    reader = open_reader(paths)
    with _Steps(console) as steps:
        prepared = prepare(reader, output, common.skip_bad_rows, steps.tell, came_from, common.limit)
    _show(console, prepared)


def _found(inputs: list[str], catalogue: list[str], of_files: bool) -> tuple[list[str], dict[str, Any] | None]:
    """The inputs on this machine or as URLs; and of a data set, where it comes from."""
    from hbtrain.cli.outputs import said_aside
    from hbtrain.corpus.data_sets import BENCHMARK, TRAINING, WantedData, about, is_named
    from hbtrain.formats.locations import expanded

    if not any(map(is_named, inputs)):
        return [expanded(path) for path in inputs], None
    if len(inputs) > 1:
        raise ConfigError(f"{' '.join(inputs)}: a data set by name stands alone; prepare them one by one")
    wanted = WantedData.parse(inputs[0], (*TRAINING, *BENCHMARK), catalogue)
    fetched = wanted.fetch(notify=said_aside)
    files = [str(fetched.folder / name) for name in sorted(fetched.files)]
    return files if of_files else [str(fetched.folder)], about(fetched)


def show_check(folder: str) -> None:
    """Check a corpus, and print how many files are as they were written."""
    from hbtrain.corpus.prepared import check_files
    from hbtrain.storage import expand_home

    files = check_files(expand_home(folder))
    TextConsole().print(f"{files} files are as they were written")


def _show(console: TextConsole, prepared: Prepared) -> None:
    from hbtrain.corpus.source import Source

    manifest = prepared.manifest
    index = Source.from_prepared(prepared.folder, prepared.folder.name).index
    table = Table(box=None)
    for column in ("language", "rows", "queries", "passages"):
        table.add_column(column, justify="left" if column == "language" else "right")
    texts = manifest["texts"]
    passages = texts.get("passage", texts["query"])
    for column_index, language in enumerate(index.languages):
        both = index.query_patterns[:, column_index] & index.passage_patterns[:, column_index]
        rows = int(index.pattern_counts[both].sum())
        counts = (texts["query"].get(language, 0), passages.get(language, 0))
        table.add_row(language, f"{rows:,}", *(f"{number:,}" for number in counts))
    console.print(table)
    console.print(f"{index.rows:,} rows")
    for reason, number in manifest["dropped"].items():
        console.print(f"dropped {number:,}: {reason}", soft_wrap=True)
    if manifest["dropped"]:
        console.print(f"listed  {prepared.folder / 'drops.jsonl'}", soft_wrap=True)
    what = "prepared" if prepared.fresh else "was there, from the same inputs and options:"
    console.print(f"\n{what}  {prepared.folder}", soft_wrap=True)


class _Steps:
    """Shows a line of progress for each step of `prepare`."""

    def __init__(self, console: TextConsole) -> None:
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TextColumn("{task.fields[done]}")
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Steps:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def tell(self, what: str, done: int) -> None:
        """Show that the step `what` has processed `done` items."""
        if what not in self._tasks:
            self._finish()
            self._tasks[what] = self._progress.add_task(what, total=None, done="")
        self._progress.update(self._tasks[what], done=f"{done:,}" if done else "")

    def _finish(self) -> None:
        for task in self._tasks.values():
            self._progress.update(task, total=1, completed=1)
