"""README.md, docs/ and cluster/: links lead somewhere on GitHub as on the site, which builds without a warning."""

import logging
import re

import pytest
import yaml

from tests.unit.documented import ROOT, hooks, written_pages

PAGES = written_pages()
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
INLINE = re.compile(r"`|\*\*|\[([^\]]*)\]\([^)]*\)")


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    seen = {}
    for heading in HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        slug = re.sub(r"[^\w\- ]", "", INLINE.sub(r"\1", heading).lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        yield slug if not seen[slug] else f"{slug}-{seen[slug]}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_of_the_checkout(page):
    for target in hooks().links(PAGES[page]):
        path = hooks().path_of(target, page)
        assert (ROOT / path).is_file(), f"{target}: no such file; a folder has no page on the site"
        if anchor := target.partition("#")[2]:
            assert anchor in list(anchors(PAGES[path])), target


@pytest.mark.parametrize("page", PAGES)
def test_links_within_a_page_lead_to_its_headings(page):
    for anchor in re.findall(r"\]\(#([^)\s]+)\)", "".join(hooks().CODE.split(PAGES[page])[::2])):
        assert anchor in list(anchors(PAGES[page]))


def test_readme_is_one_that_is_read():
    assert len((ROOT / "README.md").read_bytes()) <= 9 * 1024


def test_every_page_is_in_the_navigation():
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), loader)

    def listed(entry):
        if isinstance(entry, str):
            yield entry
        for child in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from listed(child)

    found = list(listed(config["nav"]))
    written = {hooks().site_path(page) for page in PAGES}
    made = {path for path, _ in hooks().generated_pages() if not path.startswith(hooks().SETS)}
    assert sorted(found) == sorted({*written, *made, hooks().SETS})


def test_links_become_those_of_the_site():
    text = "[a](docs/batches.md#x) ![b](docs/audit-static-parallel.png) [c](LICENSE) [d](https://x.org) `[e](f)`"
    moved = "[a](batches.md#x) ![b](audit-static-parallel.png) [c](repository/LICENSE) [d](https://x.org) `[e](f)`"
    assert hooks().with_site_links(text, "README.md") == moved
    assert hooks().with_site_links("[a](../../README.md#q)", "docs/concepts/loss.md") == "[a](../index.md#q)"


def test_a_notebook_becomes_a_page_with_its_tables():
    code = {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": [{"data": {"text/plain": ["1"]}}]}
    table = {"cell_type": "code", "source": ["y"], "outputs": [{"data": {"text/html": ["<p>\n\n1</p>"]}}]}
    cells = [{"cell_type": "markdown", "source": ["# Ten lines"]}, code, table, code | {"outputs": [{"text": ["2\n"]}]}]
    page = hooks().notebook_page({"cells": cells}, "n.ipynb")
    assert page.startswith(
        "# Ten lines\n\nThis page is the notebook `docs/n.ipynb`.\n\n```python\nx = 1\nx\n```\n\n```\n1\n"
    )
    assert "<div><p>\n1</p></div>" in page and page.endswith("```\n2\n\n```\n")
    assert hooks().with_site_links("[n](notebook.ipynb#a)", "docs/python.md") == "[n](notebook.md#a)"


def test_every_key_has_its_row_and_every_command_its_heading():
    from hbtrain.config.keys import all_keys

    pages = dict(hooks().generated_pages())
    rows = re.findall(r"^\| `([\w.]+)` \|", pages["reference/keys.md"], re.MULTILINE)
    assert sorted(rows) == sorted(all_keys())
    without_meaning = re.findall(r"^\| `([\w.]+)` \|.*\|  \|$", pages["reference/keys.md"], re.MULTILINE)
    assert not without_meaning
    assert {"## hbtrain train", "### hbtrain data fetch"} <= {*pages["reference/commands.md"].splitlines()}


def test_the_site_builds_without_a_warning(tmp_path, caplog):
    config = pytest.importorskip("mkdocs.config", reason="the extra `docs` is not installed")
    from mkdocs.commands.build import build

    with caplog.at_level(logging.WARNING, "mkdocs"):
        build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    built = tmp_path / "site"
    for page in ("index.html", "reference/keys/index.html", "data-sets/miracl/index.html"):
        assert (built / page).stat().st_size > 10_000
    assert 'id="hbtrain.runs.run.train"' in (built / "reference" / "python" / "index.html").read_text()
