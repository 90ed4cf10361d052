"""Parallel sentences: files of lines, and tables with a column a language."""

import pytest

from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.columns import ColumnReader, Columns
from hbtrain.corpus.readers.inline import LinesReader
from hbtrain.errors import ConfigError, DataError
from hbtrain.formats.lines import find_lines, lines_by_language
from tests.prepared_samples import prepared
from tests.unit.judged_samples import parquet, write


def rows_of(source):
    assert source.index.sentences
    return [row["text"] for row in source.records()]


@pytest.mark.parametrize(
    ("names", "split", "codes"),
    [
        (["de.txt", "pt-BR.txt.gz"], "dev", ["de", "pt-BR"]),
        (["newstest2019-ref.deu.txt", "newstest2019-ref.srp-Cyrl.txt", "newstest2019-src.eng.txt"], "dev", None),
        (["dev/deu_Latn.dev", "dev/zho_Hans.dev", "dev/zho_Hant.dev", "devtest/deu_Latn.devtest"], "dev", None),
        (["dev/deu_Latn.dev", "devtest/deu_Latn.devtest", "devtest/hin_Deva.devtest"], "devtest", ["de", "hi"]),
    ],
)
def test_files_of_lines_as_their_makers_name_them(tmp_path, names, split, codes):
    for name in names:
        write(tmp_path / "set" / name, f"of {name}\n")
    write(tmp_path / "set" / "README.md", "x\n")
    found = find_lines(str(tmp_path / "set"), split)
    expected = {"newstest2019-ref.deu.txt": ["de", "en", "sr"], "dev/deu_Latn.dev": ["de", "zh-Hans", "zh-Hant"]}
    assert list(found) == (codes or expected[names[0]])
    assert [x["de"] for x in rows_of(prepared(LinesReader(found), tmp_path / "corpus"))] == [
        f"of {found['de'][-len(n) :]}" for n in names if found["de"].endswith(n)
    ]


def test_some_of_the_languages_by_folder_or_by_file(tmp_path):
    for language in ("de", "en", "zh"):
        write(tmp_path / f"{language}.txt", f"eins {language}\n\nzwei {language}\n")
    found = lines_by_language([str(tmp_path)], ["zh", "deu"], "dev")
    assert list(found) == ["de", "zh"]
    source = prepared(LinesReader(found), tmp_path / "corpus", skip=True)
    assert rows_of(source) == [{x: f"{n} {x}" for x in ("de", "zh")} for n in ("eins", "zwei")]
    given = [f"sw={tmp_path / 'de.txt'}", f"yo={tmp_path / 'en.txt'}"]
    assert list(lines_by_language(given, None, "dev")) == ["sw", "yo"]
    with pytest.raises(DataError, match="'fr' is not in .*it has de, en, zh"):
        lines_by_language([str(tmp_path)], ["fr"], "dev")
    with pytest.raises(ConfigError, match="must be LANGUAGE=FILE"):
        lines_by_language([given[0], "x"], None, "dev")
    with pytest.raises(DataError, match=r"holds no lines by language: files such as de\.txt, newstest2019-ref"):
        find_lines(str(tmp_path / "corpus"))


def test_sides_of_different_length_are_refused(tmp_path):
    files = {x: str(write(tmp_path / f"{x}.txt", "a\nb\n" if x == "de" else "a\n")) for x in ("de", "en")}
    with pytest.raises(DataError, match="not equally many lines"):
        prepare(LinesReader(files), tmp_path / "corpus")


def test_columns_of_sentences(tmp_path):
    records = [{"sentence1": "eins", "sentence2": "one"}, {"sentence1": " ", "sentence2": "two"}]
    file = parquet(tmp_path / "deu-eng" / "test.parquet", [*records, {"sentence1": None, "sentence2": ""}])
    columns = Columns({}, {}, {}, text={"de": "sentence1", "en": "sentence2"})
    with pytest.raises(DataError, match=r"row 3: an empty text \(sentence1, sentence2\)"):
        prepare(ColumnReader([str(file)], columns), tmp_path / "corpus")
    source = prepared(ColumnReader([str(file)], columns), tmp_path / "corpus", skip=True)
    assert rows_of(source) == [{"de": "eins", "en": "one"}, {"en": "two"}]
    assert "text" not in Columns({"de": "a"}, {"de": "b"}, {}).to_json()
    with pytest.raises(DataError, match="has no column 'deu_Latn'"):
        prepare(ColumnReader([str(file)], Columns({}, {}, {}, text={"de": "deu_Latn"})), tmp_path / "other")
