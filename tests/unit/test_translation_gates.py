"""The quality gates: real translations pass, what models do wrong does not."""

import gzip
import json
import random
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.corpus import source_path
from hbtrain.errors import ConfigError
from hbtrain.translation.gates import GATES, Limits, reason_to_reject
from hbtrain.translation.languages import LANGUAGES, Identifier, check_pair
from hbtrain.translation.scores import Scores, score
from hbtrain.translation.units import letters_by_script, script_of

IDENTIFIER = Identifier()
ENGLISH = (
    "The old lighthouse on the coast was built by fishermen, who paid for it with what they earned in three good "
    "summers. It has not been lit for forty years, but people still climb its stairs to see the ships."
)
GERMAN = (
    "Der alte Leuchtturm an der Küste wurde von Fischern gebaut, die ihn mit dem bezahlten, was sie in drei guten "
    "Sommern verdienten. Seit vierzig Jahren brennt er nicht mehr, doch noch immer steigen Leute die Treppe hinauf, "
    "um die Schiffe zu sehen."
)
RUSSIAN = (
    "Старый маяк на берегу построили рыбаки, заплатив за него тем, что заработали за три удачных лета. Он не горит "
    "уже сорок лет, но люди всё ещё поднимаются по его лестнице, чтобы увидеть корабли."
)
CHINESE = (
    "海岸上的老灯塔是渔民们建造的，他们用三个丰收的夏天挣来的钱付了账。"
    "它已经四十年没有亮过了，但人们仍然爬上楼梯去看船。"
)


def reason(text, translation, target, limits=None, source="en"):
    scores = score(text, translation, LANGUAGES[source], LANGUAGES[target], IDENTIFIER)
    return reason_to_reject(scores, limits or Limits())


@pytest.mark.parametrize(("target", "translation"), [("de", GERMAN), ("ru", RUSSIAN), ("zh", CHINESE)])
def test_a_good_translation_passes_both_ways(target, translation):
    assert reason(ENGLISH, translation, target) is None
    assert reason(translation, ENGLISH, "en", source=target) is None


@pytest.mark.parametrize(
    ("translation", "why"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        (ENGLISH, "copy"),
        (ENGLISH.upper(), "copy"),
        (GERMAN[:60] + " und dann und dann" * 20, "repetition"),
        (GERMAN + " nein" * 40, "repetition"),
        ("ja " * 70, "repetition"),
        (RUSSIAN, "script"),
        (CHINESE, "script"),
        (GERMAN[: len(GERMAN) // 4], "length"),
        (f"{GERMAN} {' '.join(reversed(GERMAN.split()))} {''.join(reversed(GERMAN))}", "length"),
        ("El viejo faro de la costa fue construido por pescadores que lo pagaron con tres buenos veranos.", "language"),
    ],
)
def test_what_models_do_wrong_is_caught_and_named(translation, why):
    assert reason(ENGLISH, translation, "de") == why


@pytest.mark.parametrize(
    ("text", "translation", "target"),
    [
        ("Microsoft Azure", "Microsoft Azure", "ru"),
        ("Albert Einstein, 1879", "Albert Einstein, 1879", "de"),
        ("42", "42", "ar"),
        ("router", "Router", "de"),
        ("Set HTTP_PORT=80 in nginx.conf", "Setze HTTP_PORT=80 in nginx.conf", "de"),
        ("no, no, no, no, no, he said", "nein, nein, nein, nein, nein, sagte er", "de"),
        ("What is the boiling point?", "沸点是多少？", "zh"),
        ("Use the API of GitHub", "使用 GitHub 的 API", "zh"),
    ],
)
def test_names_numbers_code_and_what_the_source_repeats_are_no_fault(text, translation, target):
    assert reason(text, translation, target) is None


@pytest.mark.parametrize(
    ("text", "translation", "why"),
    [
        ("router", "router", None),  # one plain word is often the same in both languages
        ("old router", "old router", "copy"),
        ("old router", "alter router", None),
        ("the old router", "old router the", "copy"),
        ("the old red router", "der old red router", "copy"),
    ],
)
def test_few_plain_words_are_a_copy_where_all_of_several_are_there(text, translation, why):
    assert reason(text, translation, "de", Limits(language=0)) == why


def test_japanese_has_kana_and_chinese_has_none():
    japanese = "海岸の古い灯台は漁師たちが建てたもので、三度の豊漁の夏に稼いだお金で支払われました。"
    assert reason(ENGLISH[:110], japanese, "ja") is None
    assert reason(ENGLISH[:150], CHINESE, "ja") == "script"


@pytest.mark.parametrize("limit", ["copied=0.0", "longest=0.8", "script=1.0", "shortest=1.1"])
def test_a_limit_can_be_moved(limit):
    name, _, value = limit.partition("=")
    changed = Limits(**{name: float(value)})
    text = "The new harbour of Rotterdam is in the middle of the old town, which many visitors like"
    translation = "Der neue Hafen von Роттердам liegt mitten in der alten Stadt, was viele Besucher mögen"
    assert reason(text, translation, "de") is None
    assert reason(text, translation, "de", changed) is not None


def test_without_an_identifier_only_scripts_are_looked_at():
    spanish = "El viejo faro de la costa fue construido por los pescadores del pueblo con mucho trabajo y amor."
    scores = score(GERMAN[:100], spanish, LANGUAGES["de"], LANGUAGES["fr"])
    assert scores.language is None
    assert reason_to_reject(scores, Limits()) is None


@pytest.mark.parametrize(
    "limits", [{"copied": 1.1}, {"shortest": 3.0}, {"language": -0.1}, {"squeezed": 0.5}, {"longest": 0.1}]
)
def test_limits_are_checked(limits):
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Limits(**limits)


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["de", "zh", "th", "ar"]))
def test_any_texts_have_scores_that_survive_a_file(text, translation, target):
    scores = score(text, translation, LANGUAGES["en"], LANGUAGES[target], IDENTIFIER)
    assert Scores(**json.loads(json.dumps(asdict(scores)))) == scores
    assert reason_to_reject(scores, Limits()) in {None, *GATES}


def test_scripts_of_letters_and_marks():
    assert letters_by_script("Ärger, 3 кота, हिन्दी ｶﾅ 漢字 １２ é!") == {
        "LATIN": 6,
        "CYRILLIC": 4,
        "DEVANAGARI": 6,
        "KATAKANA": 2,
        "CJK": 2,
    }
    assert script_of("\u0301") is None  # a combining accent goes with any script


@pytest.mark.parametrize(
    ("source", "targets", "message"),
    [
        ("en", ["de", "xx"], "--to xx: no language known here; ar, "),
        ("tlh", ["de"], "--from tlh: no language known here"),
        ("en", ["de", "en"], "--to en is the language of --from"),
        ("en", ["de", "de"], "--to names de twice"),
        ("en", [], "--to names no language"),
    ],
)
def test_languages_are_checked(source, targets, message):
    with pytest.raises(ConfigError, match=message):
        check_pair(source, targets)


def parallel(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)["text"]


FAULTS = {
    "copy": lambda text, translation: text,
    "cut to a quarter": lambda text, translation: translation[: len(translation) // 4],
    "loop": lambda text, translation: f"{translation[: len(translation) // 2]} " + f"{translation[:20]} " * 20,
    "loop at the end": lambda text, translation: f"{translation} " + f"{translation[-12:]} " * 12,
}


@pytest.mark.shared
@pytest.mark.parametrize("language", ["ar", "de", "el", "es", "hi", "ru", "th", "tr", "vi", "zh"])
def test_real_translations_pass_and_broken_ones_do_not(shared, language):
    rows = list(parallel(shared / "sentences" / "flores.jsonl.gz"))
    sample = [row for row in random.Random(language).sample(rows, 150) if len(row["en"]) >= 60]
    passed = [row for row in sample if reason(row["en"], row[language], language) is None]
    assert len(passed) >= 0.99 * len(sample)
    for fault, broken in FAULTS.items():
        caught = [reason(row["en"], broken(row["en"], row[language]), language) for row in passed]
        assert sum(why is not None for why in caught) >= 0.95 * len(passed), fault
    for other in ["ar", "de", "es", "ru", "tr", "zh", "th"]:
        if other != language:
            caught = [reason(row["en"], row[other], language) for row in passed]
            assert sum(why is not None for why in caught) >= 0.97 * len(passed), other


def test_the_demo_corpus_passes():
    rows = [json.loads(line) for line in source_path("demo").read_text(encoding="utf-8").splitlines()]
    judged = [
        reason(row[side]["en"], text, language)
        for row in rows
        for side in ("query", "passage")
        for language, text in row[side].items()
        if language != "en"
    ]
    assert len(judged) > 1000
    assert sum(why is not None for why in judged) <= 0.01 * len(judged)
