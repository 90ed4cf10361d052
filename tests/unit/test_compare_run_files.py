"""Run files of another system stand in the same tables as evaluations."""

import gzip

import numpy as np
import pytest

from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method
from hbtrain.errors import ConfigError, DataError
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.results import save_evaluation
from hbtrain.evaluation.trec_runs import TrecRunWriter
from tests.unit.evaluation_samples import HashEncoder, paragraph, write_lareqa

QUICK = Method(flips=99, resamples=50)


@pytest.fixture
def made(tmp_path):
    """(benchmark, folder of an evaluation, folder of the same system's run files of depth 10)."""
    generator = np.random.default_rng(0)
    languages = {
        x: [
            paragraph(
                [f"{x} sentence {p} {s}" for s in range(4)], {f"q{p}-{i}": int(generator.integers(4)) for i in "ab"}
            )
            for p in range(5)
        ]
        for x in ("de", "en", "th")
    }
    text = f"lareqa={write_lareqa(tmp_path / 'small', languages)}"
    benchmark = load_benchmark(parse_benchmark(text))
    runs = TrecRunWriter(tmp_path / "theirs", "other system")
    evaluation = evaluate(HashEncoder(), benchmark, takers=[runs])
    save_evaluation([evaluation], tmp_path / "ours", "hash")
    return text, tmp_path / "ours", tmp_path / "theirs"


def test_a_systems_run_files_score_as_its_evaluation(made):
    text, ours, theirs = made
    found = compare([ours, theirs], data=[text], method=QUICK)
    (task,) = found.tasks
    assert task.metric == "ndcg@10", "mAP of ten places is not mAP"
    assert [s.label for s in found.systems] == ["hash", "theirs"]
    for setting in ("mono", "cross", "multi"):
        difference = found.get("theirs", "small", setting, "ndcg@10").difference
        assert difference.value == pytest.approx(0, abs=1e-6)
    shares = task.top10_shares
    assert shares["hash"] == {x: pytest.approx(pair) for x, pair in shares["theirs"].items()}
    assert sum(share for share, _ in shares["hash"].values()) == pytest.approx(1)
    assert "searched in different ways: exact, run files" in found.notes[-1]


def test_what_does_not_fit_in_run_files_is_noted(made):
    text, ours, theirs = made
    file = theirs / "small" / "mono" / "en.trec.gz"
    lines = gzip.decompress(file.read_bytes()).decode()
    file.write_bytes(gzip.compress(f"{lines}q0-a Q0 nowhere 99 -9 other\n".encode()))
    notes = compare([ours, theirs], data=[text], method=QUICK).notes
    count = len(lines.splitlines()) + 1
    assert f"{file}: 1 of {count} lines name documents that are not among the candidates, such as 'nowhere'" in notes[0]


def test_cut_and_uncut_map_are_not_compared(made):
    text, ours, theirs = made
    with pytest.raises(DataError, match="so its map on small is map@10, which is not the others'"):
        compare([ours, theirs], data=[text], metric="map")


def test_run_files_need_their_benchmark(made, tmp_path):
    text, ours, theirs = made
    with pytest.raises(ConfigError, match="holds run files; say what they answer with --data"):
        compare([ours, theirs])
    with pytest.raises(ConfigError, match="there are none of demo"):
        compare([ours, theirs], data=["demo"])
    (theirs / "small" / "mono" / "en.trec.gz").write_bytes(gzip.compress(b"a b c\n"))
    with pytest.raises(DataError, match=r"en.trec.gz, line 1: 3 fields"):
        compare([ours, theirs], data=[text])
