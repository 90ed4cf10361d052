"""Codes of languages: spellings that mean one language, and those that do not."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_tatoeba
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.formats.language_codes import (
    NAMES,
    code_of,
    codes_of,
    is_among,
    is_known,
    pair_of,
    same_language,
)
from hbtrain.formats.languages import LANGUAGE, choose_languages
from tests.unit.evaluation_samples import HashEncoder

SPELLINGS = ["de", "deu", "deu_Latn", "german", "zh", "zho_Hans", "zho_Hant", "cmn", "zh_tw", "zh-TW", "swh", "swahili"]
SPELLINGS += ["arz", "arb", "ar", "pt", "pt-BR", "por_BR", "yue_Hant", "xyz"]


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        ("deu", "de"),
        ("cmn", "zh"),
        ("pes", "fa"),
        ("swh_Latn", "sw-Latn"),
        ("Swahili", "sw"),
        ("zh_cn", "zh-CN"),
        ("zho_Hans", "zh-Hans"),
        ("pt-BR", "pt-BR"),
        ("arz_Arab", "arz-Arab"),  # a language of its own, not Arabic's standard
        ("yue", "yue"),  # no code of two letters
    ],
)
def test_hbtrains_code(spelling, code):
    assert code_of(spelling) == code


@given(st.sampled_from(SPELLINGS))
def test_a_code_is_a_language_and_stays_what_it_is(spelling):
    assert LANGUAGE.fullmatch(code_of(spelling))
    assert code_of(code_of(spelling)) == code_of(spelling)
    assert same_language(spelling, code_of(spelling))


def test_one_language_in_two_spellings():
    same = {frozenset(pair) for pair in product(SPELLINGS, repeat=2) if same_language(*pair)}
    assert all(same_language(two, one) for one, two in product(SPELLINGS, repeat=2) if same_language(one, two))
    assert same >= {frozenset(x) for x in [("de", "german"), ("cmn", "zho_Hant"), ("cmn", "zho_Hans")]}
    assert not same & {
        frozenset(x) for x in [("zho_Hans", "zho_Hant"), ("pt", "pt-BR"), ("arz", "arb"), ("zh", "yue_Hant")]
    }
    assert is_among("cmn", ["en", "zh"])
    assert not is_among("fry", ["de", "en"])


def test_a_script_is_named_where_a_set_has_two():
    assert codes_of(["deu_Latn", "zho_Hans", "zho_Hant"]) == {
        "deu_Latn": "de",
        "zho_Hans": "zh-Hans",
        "zho_Hant": "zh-Hant",
    }
    assert codes_of(["zho_Hans"]) == {"zho_Hans": "zh"}
    assert codes_of(["zho_Hans"], ["zh"]) == {"zho_Hans": "zh-Hans"}


def test_words_that_are_no_languages_and_pairs():
    assert all(map(is_known, [*NAMES, "de", "deu", "acm_Arab", "zh-TW"]))
    assert not any(map(is_known, ["dev", "test", "train", "all", "corpus"]))
    assert pair_of("zho-ara") == ("zho", "ara")
    assert pair_of("deu_Latn-eng_Latn") == ("deu_Latn", "eng_Latn")
    assert [pair_of(x) for x in ("pt-br", "zh-Hant", "deu", "a-b-c")] == [None] * 4


def test_a_wanted_language_is_found_under_another_spelling():
    there = ["deu", "cmn", "pt-BR", "zho_Hant"]
    assert choose_languages(there, ["de", "pt-BR"], "x") == ("deu", "pt-BR")
    assert choose_languages(there, ["zho_Hant", "cmn"], "x") == ("zho_Hant", "cmn"), "as it is spelled, if it is there"
    with pytest.raises(DataError, match="'zh' is one of cmn, zho_Hant in x: name which"):
        choose_languages(there, ["zh"], "x")
    with pytest.raises(DataError, match="'pt' is not in x; it has cmn, deu, pt-BR"):
        choose_languages(there, ["pt"], "x")
    with pytest.raises(DataError, match="each named once"):
        choose_languages(there, ["de", "deu"], "x")


def test_languages_of_three_letters_are_seen_in_training_under_two(tmp_path):
    for language in ("deu", "fry"):
        for side in (language, "eng"):
            (tmp_path / f"tatoeba.{language}-eng.{side}").write_text("a b\nb c d\nc\n")
    found = evaluate(HashEncoder(), read_tatoeba(tmp_path, "tatoeba"), trained_languages=["de", "en"])
    assert found.groups == {"seen": ("deu", "eng"), "unseen": ("fry",)}
