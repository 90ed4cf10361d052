"""The catalogue: what ships, what a user's own file may say, and what of a set is wanted."""

from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hbtrain import hub as data
from hbtrain.errors import ConfigError, DataError
from hbtrain.hub.names import read_page

SHIPPED = data.catalogue()
SOURCE = {"repository": "owner/name", "revision": "0f" * 20, "files": ["{language}/*.parquet"]}
ENTRY = {
    "name": "tiny",
    "title": "A set of tests",
    "purposes": ["benchmark", "training"],
    "form": "beir",
    "languages": ["de", "no"],
    "sources": [SOURCE],
    "licence": {"name": "cc0-1.0", "page": "https://example.org"},
    "citation": "none",
    "checked": "by a test",
}


def entry(**values):
    """A file of the catalogue, but for what `values` say; None leaves a key out."""
    return {key: value for key, value in (ENTRY | values).items() if value is not None}


def read(tree):
    return read_page(yaml.safe_dump(tree, sort_keys=False), "catalogue mine.yaml")[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_complete(name):
    one = SHIPPED[name]
    assert (resources.files("hbtrain") / "hub" / "catalogue" / f"{one.family or name}.yaml").is_file()
    for purpose in one.purposes:
        assert one.form_for(purpose)
        sources = [source for source in one.sources if purpose in (source.purposes or one.purposes)]
        assert sources, f"nothing is fetched for {purpose}"
        assert list(one.chosen(purpose, {})) == [
            *one.options,
            *(["split"] * (purpose in one.splits)),
        ]


def test_texts_stay_texts():
    (one,) = read_page(yaml.safe_dump(ENTRY).replace("'no'", "no").replace("0f" * 20, "12" * 20), "mine.yaml")
    assert list(one.languages.items()) == [("de", "de"), ("no", "no")]
    assert one.sources[0].revision == "12" * 20


def source(**values):
    return {"sources": [SOURCE | values]}


def address(**values):
    return {"sources": [{"url": "https://example.org/{language}.json", "to": "{language}.json"} | values]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"licence": None}, "licence: field required"),
        ({"licens": "mit"}, "licens = 'mit': did you mean licence? that is no key here"),
        ({"purposes": ["bench"]}, "purposes.0 = 'bench': input should be 'benchmark', 'training' or 'sentences'"),
        ({"languages": ["german"]}, "languages: 'german' is not a language code such as en, yue or pt-BR"),
        ({"languages": []}, "languages: dictionary should have at least 1 item"),
        ({"name": "Mine!"}, "name = 'Mine!': string should match pattern"),
        ({"sizes": {"fr": 3}}, "sizes names fr, which is not among languages"),
        ({"sizes": {"de": 0}}, "sizes.de = '0': input should be greater than 0"),
        ({"form": {"benchmark": "beir"}}, "form names no reader for training"),
        ({"splits": {"sentences": ["dev"]}}, "sentences is not among purposes"),
        ({"sources": [{"file": "a"}]}, "sources.0: needs `repository` or `url`"),
        (source(revision="v1"), "sources.0.revision = 'v1': string should match pattern"),
        (source(files=[]), "sources.0.files: tuple should have at least 1 item"),
        (source(files=["{split}/*"]), "{split} in sources is not known: code, language, other are"),
        (source(fils=["a"]), "sources.0.fils: did you mean files? that is no key here"),
        (address(to="../{language}"), "sources.0.to = '../{language}': must be a path inside the folder"),
        (address(to="a.json"), "to must name {language}, as url does"),
        (address(url="https://example.org/../{language}"), "must be a path inside"),
        (address(md5="12"), "sources.0.md5 = '12': a digest has 32 hex digits, not 2"),
        (address(sha256={"fr": "0" * 64}), "sha256 names fr, which is not among languages"),
    ],
)  # fmt: skip
def test_what_an_entry_may_not_say(values, message):
    with pytest.raises(ConfigError) as error:
        read(entry(**values))
    assert message in str(error.value)
    assert str(error.value).endswith("(in catalogue mine.yaml)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "catalogue mine.yaml is not YAML at line 1"),
        ("- a", "catalogue mine.yaml must hold keys and values"),
        ("name: a\nname: b", "catalogue mine.yaml has the key name twice in one mapping, in lines 1 and 2"),
        ("name: &x [*x]", "is not YAML at line 1: found unconstructable recursive node"),
    ],
)
def test_what_is_no_entry(text, message):
    with pytest.raises(ConfigError) as error:
        read_page(text, "catalogue mine.yaml")
    assert message in str(error.value)


def test_a_file_of_ones_own_works_by_its_path_and_may_replace_what_ships(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(entry(name="miracl")))
    assert data.data_set("miracl", [str(file)]).title == "A set of tests"
    assert data.data_set(str(file)).name == "miracl"
    assert data.data_set("miracl").title != "A set of tests"
    with pytest.raises(ConfigError, match=r"cannot read catalogue .*other\.yaml: No such file"):
        data.data_set(str(tmp_path / "other.yaml"))


def test_fields_have_the_first_value_where_none_is_given():
    one = read(entry(splits={"benchmark": ["dev", "test"], "training": ["train"]}, options={"by": ["x", "y"]}))
    assert one.chosen("benchmark", {}) == {"by": "x", "split": "dev"}
    assert one.chosen("benchmark", {"by": "y", "split": "test"}) == {"by": "y", "split": "test"}
    with pytest.raises(DataError, match=r"data set tiny: split 'test' must be train"):
        one.chosen("training", {"split": "test"})
    with pytest.raises(DataError, match=r"data set tiny has no option 'at'; it has by, split"):
        one.chosen("training", {"at": "x"})


NAME = st.from_regex(r"[a-z]{1,9}", fullmatch=True)


@given(NAME, st.lists(NAME, min_size=1, unique=True), st.dictionaries(NAME.filter(lambda x: x != "languages"), NAME))
def test_a_selection_is_what_was_written(name, languages, options):
    query = "&".join([f"languages={','.join(languages)}", *(f"{key}={value}" for key, value in options.items())])
    assert data.parse(f"hub:{name}?{query}") == data.Selection(name, tuple(languages), options)
    assert data.parse(f"hub:{name}") == data.Selection(name, None, {})


@pytest.mark.parametrize(
    "text", ["name", "hub:", "hub:?a=b", "hub:x?", "hub:x?a", "hub:x?a=1&a=2", "hub:x?=1", "hub:x?languages="]
)
def test_what_is_no_selection(text):
    with pytest.raises(DataError, match="must be hub:NAME or hub:NAME"):
        data.parse(text)
