"""`hbtrain translate` on a real Ray cluster: killed and resumed to the same bytes, errors of actors in one line."""

import json
import os
import signal
from contextlib import suppress

import pyarrow as pa
import pytest

from hbtrain.errors import ConfigError
from hbtrain.translation import translate as module
from hbtrain.translation.ray_pipeline import Pool, _actors, _Translate
from hbtrain.translation.translate import Translation
from hbtrain.translation.translator import Generation
from tests.integration.command import Command
from tests.unit.tiny_translators import save_nllb, save_trained_nllb
from tests.unit.translation_samples import ANYTHING, read_lines

ROWS = [
    {"id": f"r{i}", "query": {"en": f"where is house {i}?"}, "passage": {"en": f"house {i // 2} is in street {i % 7}."}}
    for i in range(150)
]
# By heart, so that the model tells languages apart and knows how a translation ends.
KNOWN = [
    {"eng_Latn": row[side]["en"], "deu_Latn": f"da ist {i} {side}", "tur_Latn": f"{side}, burada {i}."}
    for i, row in enumerate(ROWS[::25])
    for side in ("query", "passage")
]
OPEN = ["copied=1", "shortest=0", "longest=1e9", "script=0", "language=0", "repeated=1", "looped=1000000000"]
OPEN += ["squeezed=1e9"]


def in_this_process(work, pool, texts, todo):
    """The pipeline without Ray."""
    translate = _Translate(work, texts)
    for block in todo:
        (row,) = pa.Table.from_pylist([translate({"block": vars(block)})]).to_pylist()
        yield block, row["results"]


def arguments(folder, output, *more):
    fixed = ["--model", folder / "model", "--from", "en", "--to", "de", "tr", "--block-texts", "5", "--beams", "2"]
    return ["translate", folder / "source.jsonl", *fixed, "--limit", *OPEN, "--output", output, *more]


def look(blocks, seen):
    """Put the times of finished blocks into `seen`; they are cleared away at the end."""
    for path in blocks.glob("*.jsonl"):
        with suppress(FileNotFoundError):
            seen[path.name] = path.stat().st_mtime_ns


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.ray
def test_killed_it_goes_on_with_other_actors_and_ends_with_the_same_bytes(tmp_path, write_source, monkeypatch):
    save_trained_nllb(tmp_path / "model", KNOWN)
    source = write_source(ROWS)
    monkeypatch.setattr(module, "translated", in_this_process)
    whole, killed = tmp_path / "whole" / "out.jsonl.gz", tmp_path / "killed" / "out.jsonl.gz"
    wanted = Translation(
        str(source), str(tmp_path / "model"), "en", ("de", "tr"), whole, 5, Generation(beams=2), ANYTHING
    )
    module.translate(wanted)
    blocks = killed.with_name("out.jsonl.gz.translating") / "blocks"
    with Command(tmp_path, *arguments(tmp_path, killed)) as command:
        command.wait_until(lambda output: blocks.is_dir() and len(list(blocks.glob("*.jsonl"))) >= 3, what="blocks")
        command.process.send_signal(signal.SIGKILL)
        assert command.finish(10) == -signal.SIGKILL
    kept, seen = {}, {}
    look(blocks, kept)
    assert 3 <= len(kept) < 2 * (150 + 150) // 5
    assert not killed.exists()
    # The actors take all CPUs that there are.
    pool = ["--actors", "2", "--cpus-per-actor", os.cpu_count() / 2]
    with Command(tmp_path, *arguments(tmp_path, killed, *pool), RAY_USE_MULTIPROCESSING_CPU_COUNT="1") as command:
        command.wait_until(lambda output: look(blocks, seen) or "\ntranslated" in output)
        assert command.finish() == 0, command.output
    assert seen == seen | kept  # none was written again
    assert files(killed.parent) == files(whole.parent)
    rows = read_lines(killed)
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert all(sorted(row[side]) == ["de", "en", "tr"] for row in rows for side in ("query", "passage"))


@pytest.mark.ray
def test_what_an_actor_finds_wrong_is_one_line(tmp_path, write_source):
    folder = save_nllb(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_ffn_dim": config["encoder_ffn_dim"] + 1}))
    write_source(ROWS)
    with Command(tmp_path, *arguments(tmp_path, tmp_path / "out.jsonl")) as command:
        assert command.finish() == 2, command.output
        (error,) = [line for line in command.output.splitlines() if "error" in line.lower()]
        assert error.startswith(f"error: --model {folder} cannot be loaded: ")
        assert "Traceback" not in command.output


@pytest.mark.parametrize(
    ("pool", "have", "expected"),
    [
        (Pool(), {"CPU": 4}, (1, 0)),
        (Pool(), {"CPU": 16, "GPU": 8}, (8, 1)),
        (Pool(actors=3), {"CPU": 4}, (3, 0)),
        (Pool(actors=3), {"CPU": 16, "GPU": 8}, (3, 1)),
        (Pool(actors=4, use_gpu=False), {"CPU": 16, "GPU": 1}, (4, 0)),
        (Pool(actors=5), {"CPU": 4}, "5 actors with 1 CPU each need 5, and the cluster has 4"),
        (Pool(cpus_per_actor=8), {"CPU": 4}, "1 actors with 8 CPU each need 8"),
        (Pool(use_gpu=True), {"CPU": 4}, "--actors 1 with a GPU each, and the cluster has 0"),
        (Pool(actors=3), {"CPU": 16, "GPU": 2}, "--actors 3 with a GPU each, and the cluster has 2"),
    ],
)
def test_actors_fit_the_cluster_or_are_refused(monkeypatch, pool, have, expected):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            _actors(pool)
    else:
        assert _actors(pool) == expected
