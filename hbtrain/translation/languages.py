"""Languages that can be translated: their codes, scripts, names in translation models, and the length of their texts.

Corpora use codes of ISO 639-1, as M2M100 and MADLAD do. NLLB names languages by ISO 639-3 and script (arXiv 2207.04672,
table 1), Marian's models with many targets by tokens such as `>>deu<<` or `>>de<<`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hbtrain.errors import ConfigError


@dataclass(frozen=True)
class Language:
    """A language that corpora may have and models may translate."""

    code: str
    name: str
    scripts: tuple[str, ...]  # the scripts that it is written in, as `units.script_of` names them
    nllb: str
    marian: tuple[str, ...]  # its names in Marian's models, besides `code`
    density: float = 1.0
    """Characters of a text, relative to the same text in English. For ar de el es hi ru th tr vi zh it is the mean over
    FLORES, NTREX and XNLI, for other languages a guess: 1 for alphabets, less for ja and ko."""


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language("ar", "Arabic", ("ARABIC",), "arb_Arab", ("ara", "arb"), 0.89),
        Language("bg", "Bulgarian", ("CYRILLIC",), "bul_Cyrl", ("bul",)),
        Language("bn", "Bengali", ("BENGALI",), "ben_Beng", ("ben",)),
        Language("ca", "Catalan", ("LATIN",), "cat_Latn", ("cat",)),
        Language("cs", "Czech", ("LATIN",), "ces_Latn", ("ces",)),
        Language("da", "Danish", ("LATIN",), "dan_Latn", ("dan",)),
        Language("de", "German", ("LATIN",), "deu_Latn", ("deu",), 1.16),
        Language("el", "Greek", ("GREEK",), "ell_Grek", ("ell",), 1.18),
        Language("en", "English", ("LATIN",), "eng_Latn", ("eng",)),
        Language("es", "Spanish", ("LATIN",), "spa_Latn", ("spa",), 1.14),
        Language("et", "Estonian", ("LATIN",), "est_Latn", ("est",)),
        Language("fa", "Persian", ("ARABIC",), "pes_Arab", ("pes", "fas")),
        Language("fi", "Finnish", ("LATIN",), "fin_Latn", ("fin",)),
        Language("fr", "French", ("LATIN",), "fra_Latn", ("fra",)),
        Language("he", "Hebrew", ("HEBREW",), "heb_Hebr", ("heb",)),
        Language("hi", "Hindi", ("DEVANAGARI",), "hin_Deva", ("hin",), 1),
        Language("hr", "Croatian", ("LATIN",), "hrv_Latn", ("hrv",)),
        Language("hu", "Hungarian", ("LATIN",), "hun_Latn", ("hun",)),
        Language("id", "Indonesian", ("LATIN",), "ind_Latn", ("ind",)),
        Language("it", "Italian", ("LATIN",), "ita_Latn", ("ita",)),
        Language("ja", "Japanese", ("CJK", "HIRAGANA", "KATAKANA"), "jpn_Jpan", ("jpn",), 0.42),
        Language("ka", "Georgian", ("GEORGIAN",), "kat_Geor", ("kat",)),
        Language("km", "Khmer", ("KHMER",), "khm_Khmr", ("khm",)),
        Language("ko", "Korean", ("HANGUL",), "kor_Hang", ("kor",), 0.5),
        Language("lt", "Lithuanian", ("LATIN",), "lit_Latn", ("lit",)),
        Language("lv", "Latvian", ("LATIN",), "lvs_Latn", ("lav",)),
        Language("ml", "Malayalam", ("MALAYALAM",), "mal_Mlym", ("mal",)),
        Language("mr", "Marathi", ("DEVANAGARI",), "mar_Deva", ("mar",)),
        Language("ms", "Malay", ("LATIN",), "zsm_Latn", ("zsm", "msa")),
        Language("my", "Burmese", ("MYANMAR",), "mya_Mymr", ("mya",)),
        Language("ne", "Nepali", ("DEVANAGARI",), "npi_Deva", ("npi", "nep")),
        Language("nl", "Dutch", ("LATIN",), "nld_Latn", ("nld",)),
        Language("no", "Norwegian", ("LATIN",), "nob_Latn", ("nob",)),
        Language("pl", "Polish", ("LATIN",), "pol_Latn", ("pol",)),
        Language("pt", "Portuguese", ("LATIN",), "por_Latn", ("por",)),
        Language("ro", "Romanian", ("LATIN",), "ron_Latn", ("ron",)),
        Language("ru", "Russian", ("CYRILLIC",), "rus_Cyrl", ("rus",), 1.07),
        Language("sk", "Slovak", ("LATIN",), "slk_Latn", ("slk",)),
        Language("sl", "Slovenian", ("LATIN",), "slv_Latn", ("slv",)),
        Language("sr", "Serbian", ("CYRILLIC", "LATIN"), "srp_Cyrl", ("srp_Cyrl", "srp")),
        Language("sv", "Swedish", ("LATIN",), "swe_Latn", ("swe",)),
        Language("sw", "Swahili", ("LATIN",), "swh_Latn", ("swh", "swa")),
        Language("ta", "Tamil", ("TAMIL",), "tam_Taml", ("tam",)),
        Language("te", "Telugu", ("TELUGU",), "tel_Telu", ("tel",)),
        Language("th", "Thai", ("THAI",), "tha_Thai", ("tha",), 0.95),
        Language("tl", "Tagalog", ("LATIN",), "tgl_Latn", ("tgl",)),
        Language("tr", "Turkish", ("LATIN",), "tur_Latn", ("tur",), 1.03),
        Language("uk", "Ukrainian", ("CYRILLIC",), "ukr_Cyrl", ("ukr",)),
        Language("ur", "Urdu", ("ARABIC",), "urd_Arab", ("urd",)),
        Language("vi", "Vietnamese", ("LATIN",), "vie_Latn", ("vie",), 1.04),
        Language("yo", "Yoruba", ("LATIN",), "yor_Latn", ("yor",)),
        Language("zh", "Chinese", ("CJK",), "zho_Hans", ("cmn_Hans", "zho_Hans", "cmn", "zho"), 0.34),
    )
}
"""{code: language}."""


def language_of(code: str, flag: str) -> Language:
    """The language of an ISO 639-1 code, which is the value of `flag`. Raises ConfigError if it is not known here."""
    if code not in LANGUAGES:
        raise ConfigError(f"{flag} {code}: no language known here; {', '.join(LANGUAGES)} are")
    return LANGUAGES[code]


def check_pair(source: str, targets: Sequence[str]) -> None:
    """Raise ConfigError unless all these languages are known and different, and there is a target."""
    language_of(source, "--from")
    if not targets:
        raise ConfigError("--to names no language; give one or more, such as --to de fr")
    for target in targets:
        language_of(target, "--to")
        if target == source:
            raise ConfigError(f"--to {target} is the language of --from; give others, or leave it out")
        if list(targets).count(target) > 1:
            raise ConfigError(f"--to names {target} twice; leave one out")


class Identifier:
    """Identifies the language of a text, of 97 languages. Its model of 5 MB is part of the py3langid package."""

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def probability(self, text: str, language: str) -> float | None:
        """The probability that a text is in a language (ISO 639-1 code); None for a language that the model lacks."""
        return next((round(p, 4) for code, p in self._model.rank(text) if code == language), None)
