"""Queries that are asked partly in another language."""

import csv

import numpy as np
import pytest

from hbtrain.errors import ConfigError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.probes import SHARES, Probe, Probes, check_probes, parse_probes, probe_table, save_probes
from tests.unit.evaluation_samples import HashEncoder, random_benchmark


def probed(*probes, lexicons=None):
    """(the scores of the probes, the evaluation)."""
    encoder = HashEncoder()
    taker = Probes(probes, encoder, lexicons or {})
    return taker.found, evaluate(encoder, random_benchmark(), takers=[taker])


def mean_map(evaluation, language, questions):
    rows = evaluation.per_query.to_pylist()
    own = [row["map"] for row in rows if (row["setting"], row["query_language"]) == ("multi", language)
           and row["question_id"] in questions]  # fmt: skip
    return np.mean(own), len(own)


def asked_in_both(evaluation, x, y):
    rows = evaluation.per_query.to_pylist()
    ids = [{row["question_id"] for row in rows if row["query_language"] == language} for language in (x, y)]
    return set.intersection(*ids)


def test_interpolation_leads_from_the_scores_of_one_language_to_those_of_the_other():
    found, evaluation = probed(Probe("interpolate", "de", "th"))
    questions = asked_in_both(evaluation, "de", "th")
    assert 2 < len(questions) < 12
    assert [one.t for one in found] == list(SHARES)
    for one, language in ((found[0], "de"), (found[-1], "th")):
        assert (one.map, one.queries) == pytest.approx(mean_map(evaluation, language, questions))
    assert len({one.map for one in found}) > 2


def test_switched_words_are_searched_for_as_they_are_then():
    lexicon = {"question": ("question",), "de": ("th",)}
    found, evaluation = probed(Probe("switch", "de", "th"), lexicons={("de", "th"): lexicon})
    questions = asked_in_both(evaluation, "de", "th")
    assert found[0].map == pytest.approx(mean_map(evaluation, "de", questions)[0])
    # All words replaced, the texts of the sample are those of the other language.
    assert found[-1].map == pytest.approx(mean_map(evaluation, "th", questions)[0])


def test_probes_are_read_as_kinds_with_pairs():
    pair = {("de", "en"): "file"}
    assert parse_probes(["interpolate", "de+en", "fr+en", "switch", "de+en"], pair) == (
        Probe("interpolate", "de", "en"), Probe("interpolate", "fr", "en"), Probe("switch", "de", "en"),
    )  # fmt: skip
    assert parse_probes([], {}) == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["de+en"], "--probe de\\+en: give a kind \\(interpolate, switch\\)"),
        (["interpolate"], "which languages"),
        (["interpolate", "de"], "pairs of languages"),
        (["interpolate", "de+de"], "pairs of languages"),
        (["blend", "de+en"], "--probe blend: give a kind"),
        (["switch", "de+en"], "add --lexicons de-en=FILE"),
        (["interpolate", "de+en", "switch"], "which languages"),
    ],
)
def test_what_is_no_probe_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        parse_probes(words, {})


def test_languages_that_share_no_question_are_refused():
    check_probes([Probe("interpolate", "de", "th")], [random_benchmark()])
    with pytest.raises(ConfigError, match=r"--probe interpolate de\+fr: sample has no pool .* asked in both"):
        check_probes([Probe("interpolate", "de", "fr")], [random_benchmark()])


def test_probes_are_a_file_and_a_table(tmp_path):
    found, _ = probed(Probe("interpolate", "de", "th"), Probe("interpolate", "th", "en"))
    save_probes(found, tmp_path / "probes.csv")
    with (tmp_path / "probes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["from"], row["to"]) for row in rows] == [("de", "th")] * 5 + [("th", "en")] * 5
    assert float(rows[2]["map"]) == pytest.approx(found[2].map, abs=1e-6)
    assert float(rows[2]["share_from"]) == pytest.approx(found[2].share_of_start, abs=1e-6)
    assert probe_table(found).row_count == 10
