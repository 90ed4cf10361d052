"""The commands that README.md, docs/ and cluster/ show, as lists of words; and what they read, in small."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from hbtrain.modeling.encoder import Encoder
from tests.unit.comparison_samples import macro_means, rows_of, write_results, write_run
from tests.unit.evaluation_samples import paragraph, write_lareqa
from tests.unit.judged_samples import miracl
from tests.unit.tiny_models import encoder_config, save_bert

ROOT = Path(__file__).parents[2]
PROGRAMS = """
hbtrain make mlflow cluster/submit tune/sweep.py python python3 pip . .venv/bin/pytest head tail jq cd cat echo docker
kubectl helm sed ray sbatch sacct uv pre-commit /tmp/oldest/bin/python
"""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LOOP = re.compile(r"for (\w+) in ([^\s;]+)[^;]*; do\s*")
ASSIGNED = re.compile(r"""(?:^|(?<=\s))(\w+)=("[^"]*"|'[^']*'|[^\s"']+)""")
LANGUAGES = ("ar", "de", "en", "es", "hi", "ru", "sw", "th", "tr", "zh")
ROWS = 260  # more than any batch of a page has


@cache
def hooks() -> ModuleType:
    """The module docs/hooks.py, which makes pages of the site."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_pages() -> dict[str, str]:
    """{path in the checkout: text} of all pages that people write."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").rglob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(paths)}


def all_pages() -> dict[str, str]:
    """The same and, by their paths on the site, those of data sets."""
    made = {path: text for path, text in hooks().generated_pages() if path.startswith(hooks().SETS)}
    return written_pages() | made


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """(page, words) of each command in a block of a page, once a page."""
    found = []
    for page, text in all_pages().items():
        variables: dict[str, str] = {}
        for language, block in BLOCK.findall(text):
            if not language:
                found += [(page, words) for words in _block_commands(block, variables, page)]
    return list(dict.fromkeys(found))


def _block_commands(block: str, variables: dict[str, str], page: str) -> Iterator[tuple[str, ...]]:
    """Words of its commands; `variables` has those of the page, and gets those of the block."""
    block = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", block.replace("\\\n", " "), flags=re.DOTALL | re.MULTILINE)
    shown = block.startswith("$ ")  # beside what they print
    lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")] if shown else block.splitlines()
    for number, line in enumerate(_statements(lines)):
        statement = _filled(line, variables)
        if statement.startswith("export ") or re.match(r"\w+=", statement):
            variables |= {name: value.strip("\"'") for name, value in ASSIGNED.findall(statement)}
            continue
        words = shlex.split(statement, comments=True)
        if not words or words[0] in ("done", "done;"):
            continue
        if words[0] not in PROGRAMS.split():
            assert number == 0, f"{page}: is this a command? {statement}"
            return
        ends = [i for i, word in enumerate(words) if re.match(r"\|\|?$|&|[<>]", word)]
        yield tuple(words[: min(ends, default=len(words))])


def _filled(line: str, variables: dict[str, str]) -> str:
    """A line with values for its variables, loops at their first value, and a word for what programs print."""
    line = re.sub(r"\$\([^)]*\)", "printed", line)
    while loop := LOOP.search(line):
        variables[loop[1]] = loop[2]
        line = line.replace(loop[0], "", 1)
    for name, value in variables.items():
        line = re.sub(rf"\$\{{?{name}\b\}}?", lambda _, value=value: value, line)
    return line.strip()


def _statements(lines: list[str]) -> Iterator[str]:
    """Lines, joined where a quotation goes on."""
    held = ""
    for line in lines:
        held = f"{held}\n{line}" if held else line
        if held.count('"') % 2 == 0:
            yield held
            held = ""


def rows(count: int = ROWS) -> Iterator[str]:
    """Parallel JSON lines."""
    for n in range(count):
        query, passage = ({x: f"{word} {n} {x}" for x in LANGUAGES} for word in ("question", "answer"))
        yield json.dumps({"id": f"r{n}", "query": query, "passage": passage}) + "\n"


def write_world(folder: Path) -> None:
    """The files and models that the commands of pages name, small."""
    texts = "".join(rows())
    for name in ("mine.jsonl", "all.jsonl", "held-out.jsonl", "squad-en.jsonl"):
        (folder / name).write_text(texts)
    for name in ("a", "b", "mine", "mined", "held-out", "squad-5"):
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(texts.encode()))
    (folder / "qa.csv").write_text("question,frage,answer,antwort\nwho?,wer?,she,sie\nwhat?,was?,this,dies\n")
    (folder / "en-de.txt").write_text("question\tFrage\nanswer\tAntwort\n")
    (folder / "en-ru.txt.gz").write_bytes(gzip.compress("question\tвопрос\n".encode()))
    (folder / "vocab.txt.gz").write_bytes(gzip.compress(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nquestion\nanswer\n"))
    (folder / "my-recipe.yaml").write_text(
        "extends: quickstart\ndata: {sources: a.jsonl.gz}\nevaluation: {benchmarks: [demo, xquad-r=DIR]}\n"
    )
    recipe = re.search(r"```yaml\n(extends:.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    assert recipe
    (folder / "tutorial.yaml").write_text(recipe[1])
    encoder = encoder_config("static")
    Encoder.build(encoder, lambda: ["question answer", "where is the station?", "Machu Picchu"], 0).save(
        folder / "MODEL"
    )
    save_bert(folder / "backbone")
    asked = {x: [paragraph([f"River {x}.", f"Book {x}."], {"a": 0, "b": 1})] for x in ("de", "en")}
    miracl(write_lareqa(folder / "DIR", asked))
    for name in ("alpha-hybrid", "alpha-mono", "paper-hybrid", "paper-mono", "samplings-hybrid", "samplings-mono"):
        run = write_run(folder / "runs" / name, 1 if name.endswith("mono") else 0.5, 0)
        _write_scores(run / "results", quality=len(name) / 100)
    for name in ("hybrid-1", "mono-1", "mine-1", "own-hybrid-1", "own-mono-1", "mono", "cross", "quickstart-1"):
        run = write_run(folder / "runs" / name, 1 if "mono" in name else 0.5, 0)
        shutil.copytree(folder / "MODEL", run / "model")
    for name in ("results/mine", "results/other", "results-miracl/mine", "results-miracl/other"):
        _write_scores(folder / name, quality=len(name) / 100)


def _write_scores(folder: Path, quality: float) -> None:
    """Made-up results of an evaluation, with nDCG."""
    scores = [row | {"ndcg@10": row["map"]} for row in rows_of(quality)]
    means = macro_means(scores)
    means |= {name.replace("/map", "/ndcg@10"): mean for name, mean in means.items() if name.endswith("/map")}
    write_results(folder, scores, metrics=means)
