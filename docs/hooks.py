"""What `mkdocs build` adds to the pages in docs/: the pages that are made of the code, and files of the checkout.

Pages link as they do on GitHub, by paths in the checkout; on the site a link that leaves docs/ leads to the page that
the file has become (`PAGES`), or else to a copy of the file.
"""

from __future__ import annotations

import ast
import inspect
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from hbtrain.hub import DataSet

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "cluster/README.md": "cluster-files.md",
}
"""{file of the checkout: page of the site}, of those that are not in docs/."""
COPIES = "repository"  # folder of the site with copies of other files that pages link to
SETS = "data-sets"  # folder of the pages of data sets, and what stands for all of them in mkdocs.yml

WORDS = {
    "Fraction": "0 to 1",
    "Mixture": "weights, or points of weights",
    "Mode": "hybrid or monolingual or cross-lingual or multilingual or english",
    "NonNegativeInt": "0, 1, 2, …",
    "PositiveFloat": "above 0",
    "PositiveInt": "1, 2, 3, …",
    "Precision": "fp32 or bf16",
    "SamplingTemperature": "0.05 or more",
    "TermWeights": "weights of terms",
    "Weight": "0 or more",
    "bool": "true or false",
    "float": "number",
    "int": "whole number",
    "str": "text",
}
"""{name of a type in the schema: what its values are}."""

PARALLEL = ("mmarco", "parallel")  # forms whose rows are in several languages, and so offer pairs of them

CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
ELSEWHERE = re.compile(r"[a-z]+:|#|/")


def links(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures that are paths, with their anchors."""
    for part in CODE.split(text)[::2]:
        yield from (target for target in LINK.findall(part) if not ELSEWHERE.match(target))


def path_of(target: str, source: str) -> str:
    """The path in the checkout that a link of the file `source` means, without its anchor."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target.partition("#")[0]))


def site_path(path: str) -> str:
    """The path on the site of a file of the checkout; notebooks become pages."""
    path = re.sub(r"^(docs/.*)\.ipynb$", r"\1.md", path)
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}")


def with_site_links(text: str, source: str) -> str:
    """A page as the site has it: its links lead from `site_path(source)` to where their files are on the site."""
    folder = posixpath.dirname(site_path(source))

    def moved(match: re.Match[str]) -> str:
        target, mark, anchor = match[0].partition("#")
        if ELSEWHERE.match(match[0]):
            return match[0]
        path = path_of(target, source)
        return (
            posixpath.relpath(site_path(path), folder or ".") + mark + anchor if (ROOT / path).is_file() else match[0]
        )

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The entry of mkdocs.yml that stands for all data sets becomes a list of their pages."""

    def filled(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: filled(value) for title, value in entry.items()}
        if isinstance(entry, list):
            return [filled(value) for value in entry]
        return [f"{SETS}/{name}.md" for name in families()] if entry == SETS else entry

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of other folders, those that are made of the code, and copies of files that pages link to."""
    from mkdocs.structure.files import File

    texts = {name: (ROOT / name).read_text("utf-8") for name in PAGES}
    for name, text in texts.items():
        files.append(File.generated(config, PAGES[name], content=with_site_links(text, name)))
    for uri, text in generated_pages():
        files.append(File.generated(config, uri, content=text))
    texts |= {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    wanted = {path_of(target, name) for name, text in texts.items() for target in links(text)}
    for path in sorted(wanted):
        if path not in PAGES and not path.startswith(("docs/", "..")) and (ROOT / path).is_file():
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links of pages in docs/ to other folders; and the names in the table of data sets become links."""
    if page.file.generated_by is not None:
        return markdown
    if page.file.src_uri == "data.md":
        markdown = re.sub(rf"^\| `({'|'.join(families())})`", rf"| [`\1`]({SETS}/\1.md)", markdown, flags=re.MULTILINE)
    return with_site_links(markdown, f"docs/{page.file.src_uri}")


def generated_pages() -> Iterator[tuple[str, str]]:
    """(path, text) of each page that is made of the code."""
    yield "reference/commands.md", commands_page()
    yield "reference/keys.md", keys_page()
    yield "reference/python.md", python_page()
    for name, members in families().items():
        yield f"{SETS}/{name}.md", data_set_page(name, members)
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        yield f"{path.stem}.md", notebook_page(json.loads(path.read_text("utf-8")), path.name)


def notebook_page(notebook: Mapping[str, Any], name: str) -> str:
    """A notebook's cells, and below each what it gave when it was saved, tables as tables."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            shown = "".join(output.get("text", data.get("text/plain", "")))
            table = "".join(data.get("text/html", ""))
            parts.append("<div>" + re.sub(r"\n\s*\n", "\n", table) + "</div>" if table else f"```\n{shown}\n```")
    title, *rest = parts
    return "\n\n".join([title, f"This page is the notebook `docs/{name}`.", *rest]) + "\n"


def commands_page() -> str:
    """Every command with its options, from the program's own parser."""
    from hbtrain.cli.main import app

    text = app.generate_docs("markdown", usage_name="hbtrain")
    text = re.sub(r"## Table of Contents\n.*?(?=\*\*Commands\*\*)", "", text, flags=re.DOTALL)  # the site has one
    return text.replace("# hbtrain", "# Commands", 1)


def keys_page() -> str:
    """Every key of the configuration, from its schema: a table for each section."""
    from hbtrain.config import Config

    head = (
        "# Keys of the configuration\n\nA key is a flag of `hbtrain train`, `sweep`, `audit` and `verify` "
        "(`--batching.alpha 0.3`), a line of a recipe, and a parameter in MLflow. `hbtrain keys` prints them all.\n"
    )
    return head + "".join(_sections(Config, ""))


def _sections(model: type[Any], prefix: str) -> Iterator[str]:
    """A heading and a table of the values of a section, then the same of the sections in it."""
    from hbtrain.config.keys import _section

    about, types = _source_of_fields(model)
    values = [name for name, field in model.model_fields.items() if _section(field.annotation) is None]
    title = f"`{prefix.removesuffix('.')}`" if prefix else "The run"
    yield f"\n## {title}\n\n{inspect.getdoc(model)}\n\n"
    yield "| key | default | values | meaning |\n| --- | --- | --- | --- |\n"
    for name in values:
        default = model.model_fields[name].get_default(call_default_factory=True)
        shown = "" if default is None else f"`{default if isinstance(default, str) else json.dumps(default)}`"
        yield f"| `{prefix}{name}` | {shown} | {_cell(types[name])} | {_cell(about.get(name, ''))} |\n"
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from _sections(section, f"{prefix}{name}.")


def _source_of_fields(model: type[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """({field: the text below it}, {field: its type}) as the source of a section has them."""
    [body] = ast.parse(inspect.getsource(model)).body
    assert isinstance(body, ast.ClassDef)
    about: dict[str, str] = {}
    types: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            types[name] = _type(node.annotation)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            about[name] = inspect.cleandoc(str(node.value.value))
        else:
            name = ""
    return about, types


def _type(annotation: ast.expr) -> str:
    """A type in words: what the source says, with `WORDS` for its names, and the values of a Literal."""
    text = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", ast.unparse(annotation))
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"list of \1", text.replace(" | None", ""))
    text = re.sub(r"dict\[(\w+), (\w+)\]", r"{\1: \2}", text).replace(" | ", ", or ")
    text = re.sub(r"Literal\[(.*?)\]", lambda match: match[1].replace("'", "").replace(", ", " or "), text)
    return re.sub(r"\w+", lambda match: WORDS.get(match[0], match[0]), text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python_page() -> str:
    """The public names of the package, with their docstrings."""
    import hbtrain

    head = "# Python\n\nAll of these are names of the package: `from hbtrain import load_config, train`.\n"
    for name, home in sorted(hbtrain._HOMES.items()):
        module, _, called = home.partition(":")
        head += f"\n::: {module}.{called or name}\n"
    return head


def families() -> dict[str, list[DataSet]]:
    """{name of a page of the catalogue: the data sets on it}, by name."""
    from hbtrain.hub import catalogue

    found: dict[str, list[DataSet]] = {}
    for name, one in catalogue().items():
        found.setdefault(one.family or name, []).append(one)
    return dict(sorted(found.items()))


def data_set_page(name: str, members: Sequence[DataSet]) -> str:
    """What the catalogue says of a data set, and the commands that use it."""
    one = members[0]
    codes = " ".join(_two(one.languages))
    title = one.title.removesuffix(f" ({one.name.removeprefix(name + '-')})")
    first = one.name if len(members) > 1 else name
    lines = [f"# {name}", "", f"{title}.", "", "```", f"hbtrain data fetch {first} --languages {codes}"]
    if "benchmark" in one.purposes:
        lines.append(f"hbtrain evaluate MODEL --benchmark {first} --languages {codes} --output results")
    for purpose in {"training", "sentences"} & {*one.purposes}:
        chosen = _two(one.in_languages(purpose, one.chosen(purpose, {})))
        batches = "" if one.form_for(purpose) in PARALLEL else " --batching.mode monolingual"
        batches = " --batching.mode cross-lingual" if purpose == "sentences" else batches
        source = f"'hub:{first}?languages={','.join(chosen)}' --data.languages {' '.join(chosen)}"
        lines.append(f"hbtrain train xlmr-hybrid --data.sources {source}{batches}")
    lines += ["```", "", *_facts(one, members), "", f"**How this was checked.** {one.checked}", ""]
    return "\n".join(lines)


def _two(languages: Iterable[str]) -> list[str]:
    """Two languages for an example."""
    return sorted(languages, key=lambda code: code not in ("de", "en", "es", "sw", "ru"))[:2]


def _facts(one: DataSet, members: Sequence[DataSet]) -> Iterable[str]:
    """The table of a data set's facts."""
    from hbtrain.hub import Repository

    mb, whole = one.size
    yield f"| for | {', '.join(one.purposes)} |\n| --- | --- |"
    yield f"| languages ({len(one.languages)}) | {' '.join(one.languages)} |"
    for value, lacking in one.lacks.items():
        yield f"| not in {value} | {' '.join(lacking)} |"
    if len(members) > 1:
        yield f"| sets | {' '.join(f'`{member.name}`' for member in members)} |"
    for purpose, splits in one.splits.items():
        yield f"| `split`, {purpose} | {' or '.join(splits)} |"
    for option, values in one.options.items():
        yield f"| `{option}` | {' or '.join(values)} |"
    if mb:
        yield f"| to fetch, all languages | {mb:,.{0 if mb >= 10 else 1}f} MB{'' if whole else ' at least'} |"
    for source in one.sources:
        if isinstance(source, Repository):
            page = f"https://huggingface.co/datasets/{source.repository}"
            gated = "; its terms are to be accepted there" if source.gated else ""
            yield f"| from | [{source.repository}]({page}) at `{source.revision[:12]}`{gated} |"
        else:
            host = PurePosixPath(source.url.partition("://")[2]).parts[0]
            yield f"| from | {host}{'' if source.is_checked else ', without a digest to check'} |"
    yield f"| licence | [{one.licence.name}]({one.licence.page}) |"
    yield f"| citation | {one.citation} |"
