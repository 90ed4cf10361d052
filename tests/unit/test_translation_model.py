"""Translation models: families and the languages they know, weights, and translations in batches."""

import json

import pytest

from hbtrain.errors import ConfigError, ModelError
from hbtrain.translation.languages import LANGUAGES
from hbtrain.translation.model import find_translation_model, load_tokenizer
from hbtrain.translation.prompting import prompting_of
from hbtrain.translation.translator import Generation, Output, Translator
from tests.unit.tiny_models import save_bert
from tests.unit.tiny_translators import (
    TEXTS,
    save_m2m100,
    save_madlad,
    save_marian,
    save_nllb,
    save_trained_nllb,
)

BY_HEART = [
    {"eng_Latn": "the cat sleeps in the garden", "deu_Latn": "die Katze schläft im Garten", "tur_Latn": "kedi uyuyor"},
    {"eng_Latn": "where is the station", "deu_Latn": "wo ist der Bahnhof", "tur_Latn": "istasyon nerede"},
    {"eng_Latn": "we read many books", "deu_Latn": "wir lesen viele Bücher", "tur_Latn": "çok kitap okuruz"},
]
ENGLISH = [row["eng_Latn"] for row in BY_HEART]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with an NLLB model that has learned BY_HEART."""
    return save_trained_nllb(tmp_path_factory.mktemp("models") / "nllb", BY_HEART)


def whole(texts):
    return [Output(text, True) for text in texts]


def translator(folder, targets, **changes):
    generation = Generation(**({"beams": 1, "max_tokens": 60} | changes))
    return Translator(find_translation_model(str(folder), "en", targets), "en", targets, generation)


@pytest.mark.parametrize(("target", "code"), [("de", "deu_Latn"), ("tr", "tur_Latn")])
def test_a_model_translates_into_the_language_that_is_asked_for(trained, target, code):
    own = translator(trained, ["de", "tr"])
    assert own.translate(ENGLISH, target) == whole(row[code] for row in BY_HEART)
    assert own.translate([], target) == []


@pytest.mark.parametrize("changes", [{"batch_tokens": 1}, {"batch_tokens": 50}, {"beams": 3}])
def test_translations_do_not_depend_on_batches(trained, changes):
    own = translator(trained, ["de"], **changes)
    several = [ENGLISH[i] for i in (2, 0, 0, 1, 2)]
    assert own.translate(several, "de") == whole(BY_HEART[i]["deu_Latn"] for i in (2, 0, 0, 1, 2))


def test_lines_are_translated_one_by_one_and_what_is_too_long_is_not(trained):
    found = translator(trained, ["de"], max_tokens=32).translate(
        [f"{ENGLISH[1]}\n\n{ENGLISH[2]}", " ".join(ENGLISH), ENGLISH[0]], "de"
    )
    first, last = whole(["wo ist der Bahnhof\n\nwir lesen viele Bücher", "die Katze schläft im Garten"])
    assert found == [first, None, last]


@pytest.mark.parametrize("beams", [1, 3])
def test_what_the_limit_cuts_off_is_unfinished(trained, monkeypatch, beams):
    own = translator(trained, ["de"], beams=beams)
    # Tokens are letters, "▁" for each blank, the language and the end.
    tokens = [len(row["deu_Latn"].replace(" ", "▁")) + 3 for row in BY_HEART]
    monkeypatch.setattr(own, "_most_new", lambda longest: sorted(tokens)[1])
    found = own.translate([*ENGLISH, f"{ENGLISH[1]}\n{ENGLISH[0]}"], "de")
    assert [output.finished for output in found] == [False, True, True, False]
    assert found[1:3] == whole(row["deu_Latn"] for row in BY_HEART[1:])
    assert BY_HEART[0]["deu_Latn"].startswith(found[0].text)


def test_an_end_that_is_forced_is_none(tmp_path):
    """Marian's configurations ask for one at the limit; weights that know nothing never come to an end."""
    folder = save_marian(tmp_path / "marian")
    assert json.loads((folder / "generation_config.json").read_text())["forced_eos_token_id"] == 0
    assert [output.finished for output in translator(folder, ["de"]).translate(TEXTS, "de")] == [False] * len(TEXTS)


@pytest.mark.parametrize(
    ("save", "family", "start", "first"),
    [
        (save_nllb, "NLLB", ["eng_Latn", "▁"], "deu_Latn"),
        (save_m2m100, "M2M100", ["__en__", "▁"], "__de__"),
        (save_madlad, "MADLAD", ["▁", "<2de>"], None),
        (save_marian, "Marian", ["▁", "t"], None),
        (lambda folder: save_marian(folder, ["tur", "deu"], target_lang="mul"), "Marian", [">>deu<<", "▁"], None),
        (lambda folder: save_marian(folder, ["de"], target_lang=None), "Marian", [">>de<<", "▁"], None),
    ],
)
def test_every_family_is_told_the_languages_in_its_own_way(tmp_path, save, family, start, first):
    model = find_translation_model(str(save(tmp_path / "model")), "en", ["de"])
    assert model.family == family
    config, tokenizer = load_tokenizer(model.name, None)
    prompting = prompting_of(config.model_type, tokenizer, "en", ["de"], "m")
    ids = tokenizer(prompting.text(TEXTS[0], LANGUAGES["de"]))["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[:2] == start
    told = prompting.generation(LANGUAGES["de"])
    assert tokenizer.convert_ids_to_tokens(list(told.values())) == ([first] if first else [])
    found = translator(model.name, ["de"]).translate(TEXTS, "de")
    assert len(found) == len(TEXTS)
    assert all(own is not None and not any(mark in own.text for mark in ("__", ">>", "_Latn", "<2")) for own in found)


@pytest.mark.parametrize(
    ("save", "source", "targets", "message"),
    [
        (save_nllb, "en", ["de", "zh"], "no token zho_Hans, so it does not translate zh .Chinese.; it has de, en, tr"),
        (save_nllb, "fr", ["de"], "no token fra_Latn"),
        (save_m2m100, "en", ["te"], "no token __te__"),
        (save_madlad, "en", ["fr"], "no token <2fr>.*it has de, en, tr"),
        (save_marian, "en", ["fr"], "translates to de, not to fr"),
        (save_marian, "fr", ["de"], "translates from en, not from fr"),
        (
            lambda folder: save_marian(folder, target_lang=None),
            "en",
            ["fr", "de"],
            "into one language, not into fr, de",
        ),
        (lambda folder: save_marian(folder, ["deu", "tr"]), "en", ["fr"], "no token >>fr<<.*it has de, tr"),
        (save_bert, "en", ["de"], "is of type 'bert' and has no tokens for languages"),
        (lambda folder: save_nllb(folder, ("xx", "yy")), "en", ["de"], "is of type 'm2m_100' and has no tokens"),
    ],
)
def test_a_model_that_does_not_translate_these_languages_is_refused(tmp_path, save, source, targets, message):
    with pytest.raises(ModelError, match=message) as error:
        find_translation_model(str(save(tmp_path / "model")), source, targets)
    assert str(error.value).startswith(f"--model {tmp_path / 'model'}")
    assert "\n" not in str(error.value)


def test_models_that_are_not_there_broken_or_unsafe_are_one_line(tmp_path):
    def message(folder):
        with pytest.raises(ModelError) as error:
            find_translation_model(str(folder), "en", ["de"])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert message(tmp_path / "none").startswith(f"--model '{tmp_path / 'none'}' does not exist; give a translation")
    (tmp_path / "empty").mkdir()
    assert "holds no model" in message(tmp_path / "empty")
    folder = save_nllb(tmp_path / "nllb")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "a pickle" in message(folder)
    assert "AutoModelForSeq2SeqLM.from_pretrained" in message(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{")
    assert "cannot be loaded" in message(folder)


def test_broken_weights_are_one_line(tmp_path):
    folder = save_nllb(tmp_path / "nllb")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        translator(folder, ["de"])
    assert "\n" not in str(error.value)


def test_another_file_is_another_model_and_a_description_is_not(tmp_path):
    folder = save_nllb(tmp_path / "nllb")
    before = find_translation_model(str(folder), "en", ["de"]).digest
    (folder / "README.md").write_text("a model")
    assert find_translation_model(str(folder), "en", ["de"]).digest == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dropout": 0.5}))
    assert find_translation_model(str(folder), "en", ["de"]).digest != before


@pytest.mark.parametrize("changes", [{"beams": 0}, {"batch_tokens": 0}, {"max_tokens": -1}, {"precision": "int4"}])
def test_generation_is_checked(changes):
    with pytest.raises(ConfigError, match="--"):
        Generation(**changes)
