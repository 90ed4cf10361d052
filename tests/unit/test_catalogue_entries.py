"""The catalogue that ships: each entry says what `DataSet` asks for, in files that readers open; docs list them all."""

import itertools
import re
from importlib import resources
from pathlib import Path

import pytest

from hbtrain.corpus.readers import by_form
from hbtrain.errors import ConfigError, DataError
from hbtrain.evaluation import benchmarks
from hbtrain.formats.language_codes import codes_of
from hbtrain.hub import DataSet, Download, Repository, catalogue, data_set
from hbtrain.hub.data_set import NEWEST, filled
from hbtrain.hub.names import read_page

SHIPPED = catalogue()
SETS = pytest.mark.parametrize("one", [pytest.param(one, id=name) for name, one in SHIPPED.items()])
DOCS = Path(__file__).parents[2] / "docs"
ASKED_FOR = """
miracl miracl-hard-negatives mr-tydi xquad-r mlqa-r mlqa xquad tydiqa-goldp tatoeba belebele mupler nano-miracl
multilingual-nano mkqa neuclir-hard-negatives ciral mmarco mfaq webfaq natural-questions squad flores ntrex
"""
OWN_CODES = {"flores": {"tw": "twi_Latn", "ak": "aka_Latn"}}
"""Codes that differ from those that `codes_of` gives: FLORES has Twi and Akan, which elsewhere are one."""


def families():
    return sorted({one.family or name for name, one in SHIPPED.items()})


def uses(one):
    """(purpose, values of the fields of patterns) of all that can be asked of a set."""
    for purpose in one.purposes:
        allowed = dict(one.options) | ({"split": one.splits[purpose]} if purpose in one.splits else {})
        for values in itertools.product(*allowed.values()):
            yield purpose, dict(zip(allowed, values, strict=True))


def patterns(source):
    return source.patterns() if isinstance(source, Repository) else (source.url, source.to)


def test_all_sets_are_there_under_their_names():
    assert families() == sorted(ASKED_FOR.split())
    files = (file.name for file in (resources.files("hbtrain") / "hub" / "catalogue").iterdir())
    assert {file.removesuffix(".yaml") for file in files} == set(families())


@SETS
def test_each_pattern_is_a_file_of_its_own_in_each_language(one):
    for purpose, values in uses(one):
        found = {}
        for source, code in itertools.product(one.sources, one.in_languages(purpose, values)):
            spelled = {"language": one.languages[code], "other": one.languages[code], "code": code}
            for pattern in patterns(source) if purpose in (source.purposes or one.purposes) else ():
                path = filled(pattern, values | spelled)
                assert re.fullmatch(r"[\w./:*-]+", path), path
                named = "{language}" in pattern or "{code}" in pattern
                assert found.setdefault(path, code) == code or not named, path


@SETS
def test_readers_know_each_form(one):
    for purpose in one.purposes:
        forms = benchmarks.FORMS if purpose == "benchmark" else by_form.FORMS
        assert one.form_for(purpose) in forms
    assert bool(one.columns) == ("columns" in map(one.form_for, one.purposes))


@SETS
def test_languages_have_the_codes_that_readers_give_them(one):
    spellings = {spelling.removeprefix("ref.").removeprefix("src."): code for code, spelling in one.languages.items()}
    own = OWN_CODES.get(one.name, {})
    codes = codes_of(spellings) | {spelling: code for code, spelling in own.items()}
    if one.name == "ntrex":
        assert codes.pop("eng") == spellings.pop("eng") == "en"
        assert {one.languages[code] for code in ("en", "en-GB")} == {"src.eng", "ref.eng-GB"}
    assert codes == spellings


@SETS
def test_files_that_are_not_on_the_hub_have_a_digest_in_each_language(one):
    for source in one.sources:
        if isinstance(source, Download):
            assert all(source.digest(code) for code in one.languages)
            given = source.sha256 if isinstance(source.sha256, dict) else None
            assert given is None or set(given) == set(one.languages)


@SETS
def test_what_was_checked_is_said_in_sentences(one):
    assert len(one.checked) > 100 and one.checked.endswith(".")
    assert len(one.title) <= 140
    unpinned = [x for x in one.sources if isinstance(x, Repository) and x.revision == NEWEST]
    assert bool(unpinned) == ("No commit" in one.checked)


def test_languages_that_a_set_lacks_are_left_out_or_refused():
    miracl, mmarco = SHIPPED["miracl"], SHIPPED["mmarco"]
    assert len(miracl.in_languages("benchmark", {"split": "dev"})) == 18
    assert not {"de", "yo"} & set(miracl.in_languages("training", {"split": "train"}))
    assert miracl.in_languages("training", {}, ["sw", "ar"]) == ("sw", "ar")
    with pytest.raises(DataError, match=r"^data set miracl has nothing in yo for training; it has ar, bn, en, "):
        miracl.in_languages("training", {}, ["sw", "yo"])
    assert len(mmarco.in_languages("training", {"translator": "helsinki"})) == 9


def test_a_pivot_may_be_named_and_has_no_files():
    tatoeba = SHIPPED["tatoeba"]
    assert tatoeba.in_languages("benchmark", {}, ["en", "de"]) == ("de",)
    with pytest.raises(DataError, match=r"^data set tatoeba: en is the other side of all its languages; name one of "):
        tatoeba.in_languages("benchmark", {}, ["en"])


PAGE = """
name: ours
title: Ours
purposes: [benchmark]
form: beir
languages: {{de: german, no: norwegian}}
sources:
  - files: ["{{language}}/*"]
licence: {{name: none, page: https://example.org}}
citation: us
checked: by us
{more}
"""
PARTS = "parts: {a: {repository: us/a, revision: main}, b-2: {repository: us/b, revision: main}}"


def test_a_page_with_parts_is_a_family(tmp_path):
    (tmp_path / "ours.yaml").write_text(PAGE.format(more=PARTS))
    found = catalogue([str(tmp_path / "ours.yaml")])
    first, second = found["ours-a"], found["ours-b-2"]
    assert (first.family, first.title, first.sources[0].repository) == ("ours", "Ours (a)", "us/a")
    assert (second.sources[0].repository, second.languages) == ("us/b", {"de": "german", "no": "norwegian"})
    with pytest.raises(DataError, match=r"^ours is 2 data sets: name one of ours-a, ours-b-2$"):
        data_set("ours", [str(tmp_path / "ours.yaml")])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("parts: [a]", "parts: must be a mapping such as nq: {repository: ..., revision: ...} (in ours)"),
        ("", "sources.0: needs `repository` or `url` (in ours)"),
        (PARTS.replace("main", "newest"), "sources.0.revision = 'newest': "),
        (f"{PARTS}\npivot: de", "pivot de is among languages; it has no files of its own (in ours)"),
        (f"{PARTS}\nlacks: {{dev: [de]}}", "lacks names dev, which is no purpose, split or value of an option"),
        (f"{PARTS}\nlacks: {{benchmark: [fr]}}", "lacks names fr, which is not among languages (in ours)"),
        (f"{PARTS}\ncolumns: {{query: '{{split}}'}}", "{split} in columns is not known: code, language are"),
    ],
)
def test_a_page_that_says_something_else_is_refused_in_one_line(more, message):
    with pytest.raises(ConfigError) as error:
        read_page(PAGE.format(more=more), "ours")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def rows():
    """The table of all sets: a row for each page of the catalogue."""
    for name in families():
        members = [one for one in SHIPPED.values() if name in (one.name, one.family)]
        one: DataSet = members[0]
        mb, whole = one.size
        size = f"{mb:,.{0 if mb >= 10 else 1}f}{'' if whole else '+'}" if mb else "?"
        many = len(one.languages) > 8
        languages = f"{len(one.languages)}" if many else " ".join(one.languages)
        title = one.title.partition(" (" + one.name.removeprefix(f"{name}-") + ")")[0] if one.family else one.title
        licence = f"[{one.licence.name}]({one.licence.page})"
        yield f"| `{name}` | {', '.join(one.purposes)} | {title} | {languages} | {size} | {licence} |"


def between(file, mark):
    return re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", (DOCS / file).read_text(), re.DOTALL)[1]


def test_docs_list_the_sets_of_the_catalogue():
    head = "| name | for | what | languages | MB | licence |\n| --- | --- | --- | --- | ---: | --- |\n"
    assert between("data.md", "sets") == head + "".join(f"{row}\n" for row in rows())
    for file, mark, purposes in (
        ("benchmarks.md", "benchmarks", ["benchmark"]),
        ("corpora.md", "training", ["training", "sentences"]),
    ):
        named = re.findall(r"`([a-z0-9-]+)`", between(file, mark))
        wanted = [
            name
            for purpose in purposes
            for name in families()
            if any(name in (one.name, one.family) and purpose in one.purposes for one in SHIPPED.values())
        ]
        assert named == wanted


def test_the_page_in_docs_validates():
    page = re.search(r"```yaml\n(.*?)```", (DOCS / "data.md").read_text(), re.DOTALL)[1]
    (one,) = read_page(page.replace("...", "0" * 64), "docs/data.md")
    assert one.in_languages("training", {"split": "valid"}) == ("de", "en", "no", "pt-BR")
