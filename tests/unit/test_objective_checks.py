"""What guide, teacher, scores and translations need is refused in one line before any worker starts, or said."""

import re

import pytest

from hbtrain.config import load_config
from hbtrain.errors import ConfigError, DataError, ModelError
from hbtrain.modeling.encoder import Encoder
from hbtrain.planning.estimate import estimate
from hbtrain.runs.preflight import preflight
from hbtrain.runs.run_inputs import checked_inputs
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert


class Told:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def phase(self, text):
        self.lines.append(text)

    def event(self, event):
        raise AssertionError("nothing is trained")


@pytest.fixture
def check(cache, write_source):
    """Checks a configuration over some rows; returns what is said."""

    def run(table, **changes):
        small = {
            "data.sources": [str(write_source(table))],
            "data.validation": None,
            "batching.global_batch_size": 4,
            "evaluation.benchmarks": [],
            "training.validate_every": None,
            "resources.workers": 1,
        }
        told = Told()
        preflight(load_config("quickstart", small | changes), told)
        return told.lines

    return run


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static") / "model"
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(folder)
    return str(folder)


def scored(table, without=()):
    """Rows with two hard negatives, and scores but for some."""
    for i, row in enumerate(table):
        row["negatives"] = [{x: f"other {i} {j} {x}" for x in row["passage"]} for j in range(2)]
        row.update({} if i in without else {"scores": [3.0, 1.0, 2.0]})
    return table


TEACHER = {"loss.terms": {"teacher_kl": 1}}


@pytest.mark.parametrize("key", ["guide", "teacher"])
def test_models_that_are_none(check, rows, tmp_path, key):
    more = TEACHER if key == "teacher" else {}
    with pytest.raises(ModelError, match=rf"^loss.{key} '{tmp_path}/nowhere' does not exist; "):
        check(rows(8), **{f"loss.{key}": f"{tmp_path}/nowhere"}, **more)
    with pytest.raises(ConfigError, match=rf"^loss.{key} = 'static' would have random weights; "):
        check(rows(8), **{f"loss.{key}": "static"}, **more)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=rf"^loss.{key} .* holds no model"):
        check(rows(8), **{f"loss.{key}": str(tmp_path / "empty")}, **more)


def test_a_teacher_of_another_dimension(check, rows, static, tmp_path):
    """Where vectors are compared, whether it is static or a transformer; scores may be of any dimension."""
    vectors = {"loss.terms": {"teacher_cosine": 1}}
    wanted = (
        r"^loss.terms has teacher_cosine, which compares vectors: .* have 16 dimensions, .* 32; take a teacher of 32"
    )
    for teacher in (static, str(save_bert(tmp_path / "bert"))):
        with pytest.raises(ConfigError, match=wanted):
            check(rows(8), **{"loss.teacher": teacher, "encoder.static.dimension": 32}, **vectors)
        assert not check(rows(8), **{"loss.teacher": teacher, "encoder.static.dimension": 32}, **TEACHER)
        assert not check(rows(8), **{"loss.teacher": teacher, "encoder.static.dimension": 16}, **vectors)


@pytest.mark.parametrize("key", ["guide", "teacher"])
def test_scores_that_rows_lack_are_counted(check, rows, key):
    changes = {f"loss.{key}": "scores", "loss.hard_negatives": 2} | (TEACHER if key == "teacher" else {})
    assert not check(scored(rows(9)), **changes)
    wanted = f"loss.{key} = scores, and 3 of 9 rows of source source have hard negatives without scores; "
    with pytest.raises(DataError, match=re.escape(wanted)):
        check(scored(rows(9), without=(0, 4, 8)), **changes)
    with pytest.raises(DataError, match=r"and no row of source has any"):
        check(rows(9), **changes)


def test_a_source_that_is_not_drawn_from_needs_nothing(check, rows, write_source):
    other = write_source(rows(9), "other.jsonl")
    changes = {"loss.guide": "scores", "loss.hard_negatives": 2, "batching.source_weights": {"other": 0}}
    source = write_source(scored(rows(9)), "scored.jsonl")
    assert not check(rows(1), **changes, **{"data.sources": [str(source), str(other)]})


def without_english(i, language):
    return language == "en" and i < 3


def test_the_language_of_a_guide(check, rows, static):
    changes = {"loss.guide": static, "loss.guide_language": "en"}
    assert not check(rows(8), **changes)
    lines = check(rows(8, missing=without_english), **changes)
    assert lines == [
        f"loss.guide_language = en: 3 of 8 rows of source source have no {side} in it, and the guide reads these as "
        "they are"
        for side in ("query", "passage")
    ]
    with pytest.raises(DataError, match=r"^loss.guide_language = 'sw': no row of source has it"):
        check(rows(8), **changes | {"loss.guide_language": "sw"})


def test_the_language_of_a_teacher(check, rows, static):
    changes = {"loss.teacher": static, "loss.teacher_language": "en"} | TEACHER
    assert not check(rows(8), **changes)
    with pytest.raises(
        DataError, match=r"^loss.teacher_language = 'en', and 3 of 8 rows of source source have no query"
    ):
        check(rows(8, missing=without_english), **changes)
    table = scored(rows(8))
    del table[2]["negatives"][1]["en"]
    assert not check(table, **changes)
    with pytest.raises(DataError, match=r"^loss.teacher_language = 'en', and 1 hard negatives of source source"):
        check(table, **changes, **{"loss.hard_negatives": 1})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"loss.terms": {"reversed": 0.5}}, "loss.terms has reversed, for which"),
        ({"loss.terms": {"bridge": {0: 0, 9: 1}}}, "loss.terms has bridge, for which"),
        ({"loss.translations": 2, "loss.positives": "translations"}, "loss.translations = 2, for which"),
    ],
)
def test_what_no_row_has_in_two_languages(check, rows, changes, what):
    """Half of the rows have one language of two that are trained; or all of them."""
    side = "passage" if "loss.translations" in changes else "query"
    assert not check(rows(8), **changes)
    half = check(rows(8, missing=lambda i, x: i % 2 and x != "de"), **changes)
    assert half == [
        f"{what} 4 of 8 rows of source source have no {side} in another training language: these go without"
    ]
    table = [row for i, x in enumerate(("de", "en")) for row in rows(8, (x,)) if int(row["id"][1:]) % 2 == i]
    with pytest.raises(DataError, match=rf"^{what} a row needs its {side} in another .* no row of source .*de, en"):
        check(table, **changes, **{"batching.mode": "multilingual"})
    with pytest.raises(DataError, match=rf"^{what} a row needs its {side} in another training language"):
        check(rows(8), **changes, **{"data.languages": ["de"], "batching.mode": "monolingual"})


def test_parallel_sentences_need_a_third_language(check):
    def sentences(*languages):
        return [{"id": i, "text": {x: f"sentence {i} {x}" for x in languages}} for i in range(8)]

    changes = {"loss.translations": 1, "loss.positives": "translations", "batching.mode": "cross-lingual"}
    assert not check(sentences("de", "en", "ru"), **changes)
    with pytest.raises(DataError, match=r"^loss.translations = 1, for which a row needs its passage"):
        check(sentences("de", "en"), **changes)


def test_the_weights_of_guide_and_teacher_are_inputs_of_a_run(cache, write_source, rows, static):
    path = str(write_source(rows(8)))
    one = load_config("quickstart", {"data.sources": [path], "loss.guide": static, "loss.teacher": static} | TEACHER)
    digests = checked_inputs([one], None, "run", False).digests
    assert digests[f"loss.guide = {static}"] == digests[f"loss.teacher = {static}"]
    scores = {"loss.guide": "scores", "loss.hard_negatives": 1}
    plain = load_config("quickstart", {"data.sources": [path]} | scores)
    assert not any(name.startswith("loss") for name in checked_inputs([plain], None, "run", False).digests)


def test_the_estimate_counts_what_pairs_bring_along():
    def tokens(**changes):
        found = estimate(load_config("quickstart", changes))
        return found.tokens // found.pairs

    config = load_config("quickstart", {})
    query, passage = config.encoder.max_query_tokens, config.encoder.max_passage_tokens
    assert tokens() == query + passage
    assert tokens(**{"loss.translations": 3}) == query + 4 * passage
    assert tokens(**{"loss.translations": 1, "loss.terms": {"bridge": 1}}) == 2 * query + 2 * passage
