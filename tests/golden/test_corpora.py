"""Corpora of `hbtrain prepare` and JSON lines, read back whole; what was dropped; the batches drawn from them."""

import json

import pytest

from hbtrain import BatchPlan, load_config
from tests.golden import inputs
from tests.golden.reading import read_back, records

STEPS = 50


def fingerprint(path, mode):
    """Of a plan over the corpus alone: what the order of its rows and their languages come to."""
    changes = {"data.sources": [path], "batching.mode": mode, "batching.global_batch_size": 4}
    return BatchPlan.from_config(load_config("quickstart", changes)).fingerprint(0, STEPS)


@pytest.mark.parametrize("name", inputs.FORMS)
def test_prepare(hbtrain, golden, tmp_path, name):
    form = inputs.FORMS[name]
    arguments = form.write(tmp_path)
    code, out, err = hbtrain("prepare", form.command, *arguments, "--output", "corpus")
    assert code == 0, err
    drops = tmp_path / "corpus" / "drops.jsonl"
    found = {
        "command": ["prepare", form.command, *arguments],
        **read_back("corpus"),
        "digest of records": records("corpus"),
        "plan": fingerprint("corpus", form.mode),
        "drops": [json.loads(line) for line in drops.read_text().splitlines()] if drops.exists() else None,
        "table": out[out.index("\n language ") : out.index("\nprepared")].strip("\n").splitlines(),
    }
    golden(f"prepare/{name}.json", found)


@pytest.mark.parametrize("name", ["demo", "demo-heldout", "parallel", "sentences", "english"])
def test_json_lines(golden, cache, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    inputs.json_lines(tmp_path / "parallel.jsonl.gz", inputs.parallel_rows(60))
    inputs.sentences(tmp_path)
    inputs.english(tmp_path)
    path = {"parallel": "parallel.jsonl.gz", "sentences": "sentences.jsonl", "english": "english.jsonl"}.get(name, name)
    golden(f"json-lines/{name}.json", read_back(path))
