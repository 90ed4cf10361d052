"""`hbtrain audit` as people call it."""

import json

import pytest


def test_tables_and_picture(hbtrain, tmp_path):
    code, out, err = hbtrain(
        "audit", "quickstart", "--steps", 50, "--sample", 2, "--picture", "a.png", "--batching.alpha", 0.3
    )
    assert (code, err) == (0, "")
    for words in (
        "50 steps of 128 pairs",
        "mono",
        "30.0%",
        "Languages",
        "→ ar",
        "memory of a worker",
        "tokens: 2 batches",
    ):
        assert words in out
    assert all(len(line) <= 160 for line in out.splitlines() if not line.startswith(("note:", "picture")))
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_json(hbtrain):
    code, out, _ = hbtrain("audit", "quickstart", "--json", "--without-tokens")
    told = json.loads(out)
    assert code == 0
    assert told["steps"] == 400
    assert told["tokens"] is None
    assert sum(kind["batches"] for kind in told["kinds"].values()) == 400


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quikstart"], "unknown recipe 'quikstart'"),
        (["quickstart", "--steps", "401"], "--steps 401: the run has 400"),
        (["quickstart", "--batching.language_weights.sw", "2"], "'sw' is not among the training languages"),
        (["quickstart", "--batching.language_weights.de", "-1"], "greater than or equal to 0"),
        (["quickstart", "--batching.source_weights.demmo", "2"], "no source is called 'demmo'; they are demo"),
        (["quickstart", "--data.sources", "nowhere.jsonl"], "cannot read source nowhere.jsonl"),
        (["quickstart", "--encoder.backbone", "nobody/no-such-model"], "nobody/no-such-model"),
        (["xlmr-hybrid"], "data.sources names no source"),
        (
            ["quickstart", "--without-tokens", "--picture", "/proc/no/where.png"],
            "--picture /proc/no/where.png cannot be written",
        ),
    ],
)
def test_refusals_are_one_line(hbtrain, arguments, words):
    code, out, err = hbtrain("audit", *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not out
