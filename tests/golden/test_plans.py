"""Fingerprints of plans: which rows, in which languages, every batch of a configuration has; and switched texts."""

import numpy as np
import pytest

from hbtrain import BatchPlan, load_config
from hbtrain.batching.switching import Switcher
from tests.golden import inputs

STEPS = 120
LEXICONS = {"en-de": "en-de.txt", "en-sw": "en-sw.txt", "de-en": "de-en.txt"}

PLANS = {
    "quickstart": {},
    "quickstart, another seed": {"seed": 7},
    "monolingual": {"batching.mode": "monolingual"},
    "monolingual by temperature": {
        "data.sources": ["parallel.jsonl.gz"],
        "batching.mode": "monolingual",
        "batching.language_temperature": 3.0,
    },
    "cross-lingual": {"batching.mode": "cross-lingual"},
    "cross-lingual, one pair a batch": {"batching.mode": "cross-lingual", "batching.cross_languages": "batch"},
    "multilingual": {"batching.mode": "multilingual"},
    "english": {"batching.mode": "english"},
    "a schedule": {"batching.alpha": {0: 1.0, 40: 0.2, 80: 0.9}},
    "a mixture": {"batching.mixture": {"mono": 2, "cross": 2, "multi": 1}},
    "a schedule of mixtures": {"batching.mixture": {0: {"mono": 1}, 80: {"mono": 1, "cross": 2, "multi": 3}}},
    "a mixture with switched batches": {
        "batching.mixture": {"mono": 1, "cross": 1, "multi": 1, "switched": 2},
        "batching.switching.lexicons": LEXICONS,
    },
    "a schedule of mixtures that ends with switched batches, of several sources": {
        "data.sources": ["demo", "parallel.jsonl.gz", "english.jsonl"],
        "batching.mixture": {10: {"cross": 3, "multi": 1}, 40: {"mono": 1, "switched": 1}, 100: {"switched": 1}},
        "batching.switching.lexicons": LEXICONS,
        "batching.language_weights": {"de": 2.0},
    },
    "languages": {"data.languages": ["de", "en", "zh"], "batching.alpha": 0.3},
    "languages in another order": {"data.languages": ["zh", "de", "en"], "batching.alpha": 0.3},
    "weights of languages": {"batching.language_weights": {"en": 3.0, "ar": 0.5, "ru": 0.0}},
    "a batch larger than the source divides": {"batching.global_batch_size": 200, "batching.alpha": 0.8},
    "rows that lack languages": {"data.sources": ["parallel.jsonl.gz"]},
    "hard negatives": {"data.sources": ["parallel.jsonl.gz"], "loss.hard_negatives": 2, "batching.alpha": 0.7},
    "pairs by temperature": {"data.sources": ["parallel.jsonl.gz"], "batching.pair_temperature": 1_000_000.0},
    "pairs by temperature, one pair a batch": {
        "data.sources": ["parallel.jsonl.gz", "demo"],
        "batching.pair_temperature": 2.0,
        "batching.cross_languages": "batch",
    },
    "multilingual by temperature": {
        "data.sources": ["parallel.jsonl.gz", "demo"],
        "batching.mode": "multilingual",
        "batching.pair_temperature": 4.0,
    },
    "several sources": {"data.sources": ["demo", "parallel.jsonl.gz", "sentences.jsonl", "english.jsonl"]},
    "several sources, weighted": {
        "data.sources": ["english.jsonl", "demo", "sentences.jsonl"],
        "batching.source_weights": {"english": 4.0, "sentences": 0.25},
        "batching.language_temperature": 1.0,
        "batching.language_weights": {"en": 0.5},
    },
    "prepared": {"data.sources": ["mmarco"], "data.languages": ["ar", "de", "en"]},
    "prepared and JSON lines": {
        "data.sources": ["mmarco", "miracl", "demo", "parallel.jsonl.gz"],
        "data.languages": ["ar", "de", "en", "zh", "sw"],
        "batching.alpha": {0: 0.0, 100: 1.0},
        "batching.language_temperature": 2.0,
        "batching.source_weights": {"miracl": 10.0},
    },
}


@pytest.fixture
def sources(hbtrain, tmp_path, monkeypatch):
    """Files and prepared corpora of the names above, in the folder that the test stands in."""
    inputs.json_lines(tmp_path / "parallel.jsonl.gz", inputs.parallel_rows(300))
    inputs.sentences(tmp_path)
    inputs.english(tmp_path)
    for form in ("mmarco", "miracl"):
        (raw := tmp_path / f"raw-{form}").mkdir()
        monkeypatch.chdir(raw)
        arguments = inputs.FORMS[form].write(raw)
        assert hbtrain("prepare", form, *arguments, "--output", tmp_path / form)[0] == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("sources")
def test_plans(golden):
    found = {name: describe(changes) for name, changes in PLANS.items()}
    assert len({one["fingerprint"] for one in found.values()}) == len(PLANS), "every configuration counts"
    golden("plans.json", found)


def describe(changes):
    """The fingerprint of a configuration's plan, and the first pair of its first batches for people."""
    size = {"batching.global_batch_size": 20}
    plan = BatchPlan.from_config(load_config("quickstart", size | changes))
    first = [
        f"{batch.kind} of {batch.source}: row {batch.rows[0]}, {batch.query_languages[0]}-{batch.passage_languages[0]}"
        for batch in map(plan.batch, range(3))
    ]
    return {"fingerprint": plan.fingerprint(0, STEPS), "first pairs": first}


def test_switched_texts(golden, tmp_path, monkeypatch):
    """Which words are replaced, and by what: a change of it would change every run that goes on."""
    monkeypatch.chdir(tmp_path)
    for pair, file in LEXICONS.items():
        one, other = pair.split("-")
        inputs.lexicon(tmp_path / file, one, other)
    changes = {"batching.mixture": {"switched": 1}, "batching.switching.lexicons": LEXICONS, "seed": 3}
    found = {}
    for language in ("en", "de"):
        texts = [inputs.text("question", number, language) for number in range(4)]
        for side in ("query", "passage"):
            config = load_config("quickstart", {**changes, "batching.switching.side": side})
            for step in (0, 2**33):
                switched = Switcher.from_config(config).switch(texts, language, side, step, np.arange(60, 64))
                found[f"{side} in {language} at step {step}"] = switched
    golden("switched.json", found)
