"""A whole translation with a book in place of the model: gates, resuming, what is there already, bad input."""

import errno
import json
import os
from pathlib import Path

import pytest

from hbtrain.corpus import ParallelCorpus, source_path
from hbtrain.translation import translate as module
from tests.unit.tiny_translators import save_marian, save_nllb
from tests.unit.translation_samples import Book, read_lines

ROWS = [json.loads(line) for line in source_path("demo").read_text(encoding="utf-8").splitlines()][:60]
TARGETS = ["de", "ru", "zh"]


def of_languages(row, languages):
    own = {side: {x: row[side][x] for x in languages} for side in ("query", "passage")}
    return row | own


ENGLISH = [of_languages(row, ["en"]) for row in ROWS]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    languages = ("eng_Latn", "deu_Latn", "rus_Cyrl", "zho_Hans")
    return save_nllb(tmp_path_factory.mktemp("models") / "nllb", languages)


@pytest.fixture
def translate(hbtrain, monkeypatch, write_source, model):
    """Runs `hbtrain translate` on the English rows with a book; (exit code, stdout, stderr)."""
    write_source(ENGLISH, "en.jsonl")

    def run(*arguments, book=None, source="en.jsonl", to=TARGETS, output="out.jsonl", start="en"):
        monkeypatch.setattr(module, "translated", book or Book(ROWS))
        command = ["translate", source, "--model", model, "--from", start, "--to", *to, "--output", output]
        for name, value in zip(arguments[::2], arguments[1::2], strict=True):
            if name in command:
                command[command.index(name) + 1] = value
            else:
                command += [name, value]
        return hbtrain(*command)

    return run


def test_rows_get_the_languages_and_a_table_says_how_many(translate, tmp_path):
    code, out, err = translate()
    assert code == 0, err
    assert read_lines(tmp_path / "out.jsonl") == [of_languages(row, ["en", *TARGETS]) for row in ROWS]
    assert read_lines(tmp_path / "out.rejects.jsonl") == []
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert (manifest["rows"], manifest["texts"]) == (60, len({r[s]["en"] for r in ROWS for s in ("query", "passage")}))
    assert manifest["languages"]["ru"] == {"texts": manifest["texts"], "kept": manifest["texts"], "rejected": {}}
    assert manifest["model"]["family"] == "NLLB"
    assert sorted(path.name for path in tmp_path.glob("out.*")) == [
        "out.jsonl",
        "out.manifest.json",
        "out.rejects.jsonl",
    ]
    assert f"de {manifest['texts']} {manifest['texts']} 100.0%" in " ".join(out.split())
    corpus = ParallelCorpus.open([str(tmp_path / "out.jsonl")])
    assert corpus.languages == ("de", "en", "ru", "zh")


def test_what_a_gate_rejects_is_kept_apart_with_its_reason(translate, tmp_path):
    passages = [row["passage"]["en"] for row in ROWS]

    def spoil(text, translation, language):
        if text not in passages or language == "zh":
            return translation
        faults = [text, translation[: len(translation) // 5], f"{translation} " + f"{translation[:9]} " * 30, "", None]
        faults += [
            "Это просто какой-то другой язык, совсем не тот." if language == "de" else "Noch eine andere Sprache."
        ]
        place = passages.index(text)
        return faults[place] if place < len(faults) else translation

    code, out, err = translate("--block-texts", "7", book=Book(ROWS, spoil=spoil), output="out.jsonl.gz")
    assert code == 0, err
    rejects = read_lines(tmp_path / "out.rejects.jsonl.gz")
    reasons = ["copy", "length", "repetition", "empty", "too long", "script"]
    assert [(r["id"], r["side"], r["language"], r["reason"]) for r in rejects] == [
        (row["id"], "passage", language, reason)
        for row, reason in zip(ROWS, reasons, strict=False)
        for language in ("de", "ru")
    ]
    assert all(reject["text"] == row["passage"]["en"] for reject, row in zip(rejects[::2], ROWS, strict=False))
    assert rejects[0]["scores"]["copied"] == 1
    assert rejects[8]["scores"] is None
    rows = read_lines(tmp_path / "out.jsonl.gz")
    assert [sorted(row["passage"]) for row in rows[:7]] == [["en", "zh"]] * 6 + [["de", "en", "ru", "zh"]]
    assert all(sorted(row["query"]) == ["de", "en", "ru", "zh"] for row in rows)
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert manifest["languages"]["de"]["rejected"] == dict.fromkeys(sorted(reasons), 1)
    assert manifest["languages"]["zh"]["rejected"] == {}
    assert " ".join(
        ["language texts kept share", *("empty", "copy", "repetition", "script", "length", "too long")]
    ) in (" ".join(out.split()))


@pytest.mark.parametrize("stops", [[0], [1], [5, 2], [14]])
def test_interrupted_it_goes_on_and_ends_with_the_same_bytes(translate, tmp_path, stops):
    assert translate("--block-texts", "25", output="whole/out.jsonl.gz")[0] == 0
    asked = []
    for stop in stops:
        book = Book(ROWS, stop_after=stop)
        assert translate("--block-texts", "25", book=book, output="parts/out.jsonl.gz")[0] == 130
        assert not list((tmp_path / "parts").glob("*.jsonl*.gz"))
        assert (
            len(list((tmp_path / "parts" / "out.jsonl.gz.translating" / "blocks").iterdir())) == stop + len(asked) // 25
        )
        asked += book.asked
    book = Book(ROWS)
    assert translate("--block-texts", "25", book=book, output="parts/out.jsonl.gz")[0] == 0
    assert len(asked + book.asked) == len(set(asked + book.asked))
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "parts").iterdir()}
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_what_is_there_already_is_not_done_again_and_nothing_is_overwritten(translate, tmp_path):
    assert translate()[0] == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    book = Book(ROWS)
    code, out, _ = translate(book=book)
    assert (code, "was there" in out, book.asked) == (0, True, [])
    for arguments, words in [
        (("--beams", "2"), "is a translation with generation = "),
        (("--limit", "copied=0.5"), "is a translation with limits = "),
    ]:
        code, _, err = translate(*arguments)
        assert code == 2
        assert words in err
        assert "give another --output" in err
    code, _, err = translate(to=["de"])
    assert (code, "with to = " in err) == (2, True)
    (tmp_path / "other.jsonl").write_text("{}")
    code, _, err = translate(output="other.jsonl")
    assert (code, "not from hbtrain translate" in err) == (2, True)
    assert (tmp_path / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.rejects.jsonl", "mine"),
        ("out.manifest.json", "mine"),
        ("out.manifest.json", "[]"),
        ("out.manifest.json", '{"experiment": 7}'),
    ],
)
@pytest.mark.parametrize("when", ["before", "interrupted", "meanwhile"])
def test_no_file_of_somebody_else_is_overwritten(translate, tmp_path, name, content, when):
    book = Book(ROWS)
    if when == "interrupted":
        assert translate(book=Book(ROWS, stop_after=1))[0] == 130

    def meanwhile(text, translation, language):
        (tmp_path / name).write_text(content)
        return translation

    if when == "meanwhile":
        book = Book(ROWS, spoil=meanwhile)
    else:
        (tmp_path / name).write_text(content)
    code, _, err = translate(book=book)
    assert code == 2
    assert f"error: {tmp_path / name} " in err
    assert "give another --output" in err
    assert (tmp_path / name).read_text() == content
    assert not (tmp_path / "out.jsonl").exists()


def test_interrupted_on_its_way_to_its_place_an_output_is_known_again(translate, tmp_path, monkeypatch):
    replace = Path.replace

    def interrupted(path, target):
        replace(path, target)
        if path.name == "out.rejects.jsonl":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    assert translate()[0] == 130
    assert sorted(path.name for path in tmp_path.glob("out.*")) == ["out.jsonl.translating", "out.rejects.jsonl"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, _, err = translate()
    assert code == 0, err
    assert read_lines(tmp_path / "out.jsonl") == [of_languages(row, ["en", *TARGETS]) for row in ROWS]


def test_killed_while_rows_are_written_nothing_half_made_is_beside_the_output(translate, tmp_path, monkeypatch):
    seen = []

    def look(*arguments):
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "assemble", look)
    assert translate()[0] == 130
    assert [name for name in seen if "out" in name] == ["out.jsonl.translating"]


@pytest.mark.parametrize("lines", [ENGLISH[1:], [*ENGLISH, ENGLISH[0] | {"id": "new"}], ENGLISH[::-1], None])
def test_a_source_that_changes_meanwhile_is_one_line_and_no_output_appears(translate, tmp_path, write_source, lines):
    def meanwhile(text, translation, language):
        if lines is None:
            (tmp_path / "en.jsonl").unlink(missing_ok=True)
        else:
            write_source(lines, "en.jsonl")
        return translation

    code, _, err = translate("--block-texts", "25", book=Book(ROWS, spoil=meanwhile))
    assert code == 2
    (line,) = [line for line in err.splitlines() if "error" in line.lower()]
    assert line.startswith("error: source en.jsonl changed while it was translated: ")
    assert [path.name for path in tmp_path.glob("out.*")] == ["out.jsonl.translating"]
    write_source(ENGLISH, "en.jsonl")
    book = Book(ROWS)
    assert translate("--block-texts", "25", book=book)[0] == 0
    assert book.asked == []
    assert read_lines(tmp_path / "out.jsonl") == [of_languages(row, ["en", *TARGETS]) for row in ROWS]


def test_a_source_that_changes_while_it_is_read_leaves_nothing(translate, tmp_path, write_source, monkeypatch):
    whole = module.RowSource._records

    def meanwhile(source):
        yield from whole(source)
        write_source(ENGLISH[1:], "en.jsonl")

    monkeypatch.setattr(module.RowSource, "_records", meanwhile)
    code, _, err = translate()
    assert (code, "error: en.jsonl: the source changed while it was read" in err) == (2, True), err
    assert not list(tmp_path.glob("out.*"))


def test_a_file_system_that_keeps_the_open_lock_hides_no_error(translate, tmp_path, monkeypatch):
    rmdir = os.rmdir

    def kept(path, *, dir_fd=None):
        if str(path).endswith(".translating"):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        rmdir(path, dir_fd=dir_fd)

    (tmp_path / "empty.jsonl").write_text("\n")
    monkeypatch.setattr(os, "rmdir", kept)
    code, _, err = translate(source="empty.jsonl")
    assert (code, "error: empty.jsonl: the source holds no rows" in err) == (2, True), err
    assert translate()[0] == 0


def test_an_unfinished_translation_is_kept_for_its_own_command(translate, tmp_path, write_source):
    assert translate("--block-texts", "25", book=Book(ROWS, stop_after=2))[0] == 130
    for arguments, words in [
        (("--block-texts", "30"), "holds an unfinished translation with block_texts = 25, not 30"),
        (("--block-texts", "25", "--beams", "1"), "unfinished translation with generation"),
        (("--block-texts", "25", "--limit", "language=0"), "unfinished translation with identify = true, not false"),
    ]:
        code, _, err = translate(*arguments)
        assert (code, words in err) == (2, True), err
    # Other limits judge what was translated already.
    assert translate("--block-texts", "25", "--limit", "copied=0.9")[0] == 0
    assert translate("--block-texts", "25", book=Book(ROWS, stop_after=2), output="new.jsonl")[0] == 130
    write_source(ENGLISH[1:], "en.jsonl")
    code, _, err = translate("--block-texts", "25", output="new.jsonl")
    assert (code, "unfinished translation with source = " in err) == (2, True)


def test_two_processes_do_not_write_one_output(translate, tmp_path):
    from hbtrain.translation.workspace import Outputs, workspace

    with workspace(Outputs(tmp_path / "out.jsonl"), {}):
        code, _, err = translate()
        assert (code, "is being written by another process" in err) == (2, True)


def test_languages_that_rows_have_stay_and_are_not_translated(translate, tmp_path, write_source):
    rows = [of_languages(row, ["en", "de"] if i % 2 else ["en"]) for i, row in enumerate(ROWS)]
    rows[1]["query"]["de"] = "von Hand übersetzt"
    write_source(rows, "some.jsonl")
    book = Book(ROWS)
    assert translate(source="some.jsonl", to=["de"], book=book)[0] == 0
    found = read_lines(tmp_path / "out.jsonl")
    assert found[1]["query"] == rows[1]["query"]
    assert [of_languages(row, ["en", "de"]) for row in ROWS[2:]] == found[2:]
    texts = {text for _, text in book.asked}
    assert texts == {row[side]["en"] for row in ROWS[::2] for side in ("query", "passage")}


def test_a_prepared_corpus_is_a_source(translate, hbtrain, tmp_path):
    assert hbtrain("prepare", "parallel", "en.jsonl", "--output", "corpus")[0] == 0
    assert translate(source="corpus")[0] == 0
    found = read_lines(tmp_path / "out.jsonl")
    assert [row["passage"] for row in found] == [of_languages(row, ["en", *TARGETS])["passage"] for row in ROWS]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": ["en"]}, "--to en is the language of --from"),
        ({"to": ["fr"]}, "has no token fra_Latn, so it does not translate fr (French); it has de, en, ru, zh"),
        ({"to": ["xx"]}, "--to xx: no language known here"),
        ({"start": "ru", "to": ["de"]}, "--from ru: the source has no texts in ru; it has en"),
        ({"source": "none.jsonl"}, "none.jsonl does not exist"),
        ({"source": "empty.jsonl"}, "empty.jsonl: the source holds no rows"),
        ({"source": "broken.jsonl"}, "broken.jsonl line 2 is not JSON"),
        ({"source": "surrogate.jsonl"}, "surrogate.jsonl"),
        ({"source": "whole.jsonl", "to": ["de"]}, "nothing to translate: every text in en is there in de already"),
        ({"output": "out.txt"}, "--output out.txt: must end in .jsonl or .jsonl.gz"),
        ({"output": "s3://bucket/out.jsonl"}, "--output s3://bucket/out.jsonl: must be on a file system"),
        ({"output": "en.jsonl"}, "not from hbtrain translate"),
        ({"output": "en.jsonl/out.jsonl"}, "--output: cannot make"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(translate, tmp_path, write_source, changes, message):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text(json.dumps(ENGLISH[0]) + "\n{\n")
    (tmp_path / "surrogate.jsonl").write_text('{"id": 1, "text": {"en": "a \\ud800 b"}}\n')
    write_source([of_languages(row, ["en", "de"]) for row in ROWS], "whole.jsonl")
    before = {path.name for path in tmp_path.iterdir()}
    code, _, err = translate(**changes)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line.replace(str(tmp_path) + "/", "")
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == before - {"cache"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "./nowhere", "--model './nowhere' does not exist"),
        ("--beams", "0", "--beams 0: must be 1 or more"),
        ("--precision", "int8", "--precision int8: must be one of auto, fp32, bf16, fp16"),
        ("--block-texts", "0", "--block-texts 0: must be 1 or more"),
        ("--actors", "-1", "--actors -1: must be 0"),
        ("--cpus-per-actor", "0", "--cpus-per-actor 0: must be more than 0"),
        ("--cpus-per-actor", "nan", "--cpus-per-actor nan: must be more than 0"),
        ("--wait-s", "nan", "--wait-s nan: must be 0 or more"),
        ("--limit", "longest=nan", "limit longest = nan: must be a number"),
        ("--limit", "copied=2", "limit copied = 2.0: must be from 0 to 1"),
        ("--limit", "copies=0.5", "--limit copies=0.5: must be NAME=NUMBER with one of copied, shortest"),
        ("--limit", "looped=few", "--limit 'looped=few': 'few' is no int"),
    ],
)
def test_bad_options_are_one_line(translate, option, value, message):
    code, _, err = translate(option, value)
    assert code == 2
    assert f"error: {message}" in err


def test_a_marian_model_of_another_pair_is_refused(translate, tmp_path):
    code, _, err = translate("--model", str(save_marian(tmp_path / "marian", target_lang="fr")), to=["de"])
    assert (code, "translates to fr, not to de" in err) == (2, True)
