"""Interrupted anywhere, the same command ends with the same bytes; nothing half-made looks whole."""

import errno
import json
import os
import time

import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.prepare import text_tables
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.prepare.staging import Staging
from hbtrain.corpus.prepared import check_files, read_prepared
from hbtrain.corpus.readers.by_id import MmarcoReader
from hbtrain.corpus.readers.inline import ParallelReader
from hbtrain.errors import DataError, StorageError
from tests.integration.command import Command
from tests.unit.test_full_disk import no_room


def raw(folder, passages=40, languages=("english", "german")):
    folder.mkdir()
    for language in languages:
        order = range(passages) if language == "english" else reversed(range(passages))
        lines = "".join(f"{p}\tpassage {p} in {language}\n" for p in order)
        (folder / f"{language}_collection.tsv").write_text(lines)
        (folder / f"{language}_queries.train.tsv").write_text(
            "".join(f"{q}\tquery {q}\n" for q in range(passages // 4))
        )
    triples = "".join(f"{p // 4}\t{p}\t{(p + 7) % passages}\n" for p in range(passages))
    (folder / "triples.train.ids.small.tsv").write_text(triples + "999\t1\t2\n1\t888\t2\n1\t2\t777\n")
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    """What no code catches, as a kill -9 would not be."""


@pytest.fixture
def every_step(monkeypatch):
    """`kill_at(n)`: the n-th word of progress, or stage about to be marked as done, ends the preparation."""
    seen = {"left": None}

    def count(*_):
        if seen["left"] is not None:
            seen["left"] -= 1
            if seen["left"] < 0:
                raise Killed

    whole = Staging.stage

    def stage(self, name, work):
        def counted(folder):
            result = work(folder)
            count()
            return result

        return whole(self, name, counted)

    monkeypatch.setattr(Staging, "stage", stage)
    monkeypatch.setattr(text_tables, "PROGRESS_EVERY", 8)

    def kill_at(number):
        seen["left"] = number
        return count

    return kill_at


def test_killed_at_every_step_it_goes_on_to_the_same_bytes(tmp_path, every_step):
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    whole = content(prepare(reader, tmp_path / "whole", True).folder)
    assert json.loads(whole["manifest.json"])["dropped"] == {
        "a negative passage that the corpus lacks": 1,
        "a passage that the corpus lacks": 1,
        "a query without a text": 1,
    }
    output, kills, number = tmp_path / "output", 0, 0
    while True:
        count = every_step(number % 9)  # dies again and again, a little further each time
        try:
            prepare(reader, output, True, count)
            break
        except Killed:
            kills += 1
            assert not output.exists()
            with pytest.raises(DataError, match="is not finished: run"):
                ParallelCorpus.open([str(output)]) if output.exists() else read_prepared(output)
        number += 1
        assert kills < 200
    assert kills > 8
    assert content(output) == whole
    assert check_files(output) == len(whole) - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "raw", "whole"]


def test_finished_stages_are_not_done_again(tmp_path, every_step):
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    with pytest.raises(Killed):
        prepare(reader, tmp_path / "output", True, every_step(16))
    every_step(10**9)
    said = []
    prepare(reader, tmp_path / "output", True, lambda what, done: said.append(what))
    assert "texts query de" not in said
    assert "rows" in said


def test_after_a_bad_row_skipping_goes_on_with_what_was_good(tmp_path):
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    with pytest.raises(DataError, match="line 41: a query without a text"):
        prepare(reader, tmp_path / "output")
    said = []
    prepare(reader, tmp_path / "output", True, lambda what, done: said.append(what))
    assert not [what for what in said if what.startswith("texts")]
    assert content(tmp_path / "output") == content(prepare(reader, tmp_path / "whole", True).folder)
    with pytest.raises(StorageError, match="holds a corpus of other"):
        prepare(reader, tmp_path / "output", False)


def test_a_real_kill_and_the_same_command(tmp_path):
    raw(tmp_path / "raw", 8_000)
    arguments = ("prepare", "mmarco", "raw", "--skip-bad-rows", "--output")
    with Command(tmp_path, *arguments, "whole") as command:
        assert command.finish(120) == 0, command.output
    with Command(tmp_path, *arguments, "killed") as command:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("killed.preparing/texts-2")):
            assert time.monotonic() < deadline
            assert command.process.poll() is None, command.output
            time.sleep(0.005)
        command.process.kill()
        command.process.wait(10)
    assert not (tmp_path / "killed").exists()
    with Command(tmp_path, *arguments, "killed") as command:
        assert command.finish(120) == 0, command.output
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not (tmp_path / "killed.preparing").exists()


def test_a_second_process_is_sent_away_and_the_first_goes_on(tmp_path):
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    tried = []

    def meanwhile(what, done):
        if what == "rows" and not tried:
            tried.append(what)
            with pytest.raises(StorageError, match=r"output.preparing is being written by another process") as error:
                prepare(reader, tmp_path / "output", True)
            assert "\n" not in str(error.value)

    prepare(reader, tmp_path / "output", True, meanwhile)
    assert tried
    assert not prepare(reader, tmp_path / "output", True).fresh


def test_changed_inputs_and_options_begin_anew(tmp_path, every_step):
    folder = raw(tmp_path / "raw")
    with pytest.raises(Killed):
        prepare(MmarcoReader(str(folder)), tmp_path / "output", True, every_step(16))
    every_step(10**9)
    path = folder / "german_collection.tsv"
    path.write_text(path.read_text().replace("in german", "IN GERMAN"))
    os.utime(path, ns=(1, 1))
    prepare(MmarcoReader(str(folder)), tmp_path / "output", True)
    (source,) = ParallelCorpus.open([str(tmp_path / "output")]).sources.values()
    assert next(source.passages())[2].endswith("IN GERMAN")
    with pytest.raises(StorageError, match="holds a corpus of other inputs or options"):
        prepare(MmarcoReader(str(folder), ["en"]), tmp_path / "output", True)


def test_stages_of_another_version_are_done_anew(tmp_path, every_step, monkeypatch):
    """What stages leave for each other differs from version to version; a corpus does not."""
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    whole = content(prepare(reader, tmp_path / "whole", True).folder)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("hbtrain.corpus.prepare.prepare.STAGES", 1)
        prepare(reader, tmp_path / "output", True, every_step(16))
    every_step(10**9)
    said = []
    prepare(reader, tmp_path / "output", True, lambda what, done: said.append(what))
    assert "texts query de" in said
    assert content(tmp_path / "output") == whole


def test_a_finished_corpus_knows_its_inputs(tmp_path):
    folder = raw(tmp_path / "raw")
    prepare(MmarcoReader(str(folder)), tmp_path / "output", True)
    assert not prepare(MmarcoReader(str(folder)), tmp_path / "output", True).fresh
    path = folder / "german_collection.tsv"
    changed = path.stat().st_mtime_ns + 1
    path.write_text(path.read_text().replace("in german", "IN GERMAN"))  # as long as before
    os.utime(path, ns=(changed, changed))
    with pytest.raises(StorageError, match="holds a corpus of other inputs or options"):
        prepare(MmarcoReader(str(folder)), tmp_path / "output", True)


def test_remote_inputs_that_changed(tmp_path, bucket):
    lines = [json.dumps({"id": i, "query": {"en": f"q{i}"}, "passage": {"en": "p"}}) + "\n" for i in (1, 2)]
    bucket.put("a.jsonl", lines[0].encode())
    reader = ParallelReader([f"{bucket.uri}/a.jsonl"])
    prepare(reader, tmp_path / "output")
    assert not prepare(reader, tmp_path / "output").fresh
    bucket.put("a.jsonl", lines[1].encode())
    with pytest.raises(StorageError, match="holds a corpus of other inputs or options"):
        prepare(reader, tmp_path / "output")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_left_alone(tmp_path, there):
    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    if there == "file":
        (tmp_path / "output").write_text("mine")
    else:
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / "mine").touch()
    with pytest.raises(StorageError, match="output"):
        prepare(reader, tmp_path / "output")
    assert (tmp_path / "output").exists()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path):
    reader = MmarcoReader(str(raw(tmp_path / "raw", 400)))
    with pytest.raises(StorageError, match=r"cannot write the corpus .*output: .*make room there") as error, no_room():
        prepare(reader, tmp_path / "output", True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "output").exists()
    prepare(reader, tmp_path / "output", True)
    whole = prepare(reader, tmp_path / "whole", True)
    assert content(tmp_path / "output") == content(whole.folder)


def test_a_staging_folder_that_does_not_go(tmp_path, monkeypatch):
    """As on NFS, where the file of an open lock that is deleted stays under another name until it is closed."""
    whole = os.rmdir

    def rmdir(path, **others):
        if str(path).endswith(".preparing"):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        whole(path, **others)

    reader = MmarcoReader(str(raw(tmp_path / "raw")))
    monkeypatch.setattr(os, "rmdir", rmdir)
    assert prepare(reader, tmp_path / "output", True).fresh
    assert check_files(tmp_path / "output")
    monkeypatch.undo()
    assert not prepare(reader, tmp_path / "output", True).fresh
    assert not (tmp_path / "output.preparing").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write the corpus"):
        prepare(MmarcoReader(str(raw(tmp_path / "raw"))), tmp_path / "file" / "output")


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "manifest", "format"])
def test_a_damaged_corpus_is_refused(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n')
    folder = prepare(ParallelReader([str(path)]), tmp_path / "corpus").folder
    victim = folder / ("manifest.json" if damage in ("manifest", "format") else "query.en.arrow")
    whole = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        changed = {"cut": whole[:-8], "changed": whole[:-1] + b"?", "manifest": b"{"}
        changed["format"] = whole.replace(b'"prepared": 1', b'"prepared": 99')
        victim.write_bytes(changed[damage])
    with pytest.raises(DataError, match="corpus"):
        check_files(folder)
    if damage != "changed":
        with pytest.raises(DataError, match="prepare|format 99"):
            ParallelCorpus.open([str(folder)])
