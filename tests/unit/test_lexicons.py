"""Lexicons in MUSE's form: both separators, several translations, odd files; in FreeDict's; and how their words are
found in texts."""

import codecs
import gzip

import numpy as np
import pytest

from hbtrain.batching.switching import Switcher, Vocabulary
from hbtrain.errors import DataError
from hbtrain.formats.inputs import IGNORED
from hbtrain.formats.lexicons import read_lexicon


def written(tmp_path, content, name="en-de.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_tabs_and_blanks_separate_and_lines_of_one_word_come_together(tmp_path):
    lines = "river Fluss\nhill  \tHügel \n\nriver\tStrom\nriver Fluss\n ice cream\tEis am Stiel\r\nà\u00a0peine kaum"
    expected = {
        "river": ("Fluss", "Strom"),
        "hill": ("Hügel",),
        "ice cream": ("Eis am Stiel",),
        "à\u00a0peine": ("kaum",),
    }
    assert read_lexicon(written(tmp_path, lines)) == expected
    assert read_lexicon(written(tmp_path, codecs.BOM_UTF8 + lines.encode())) == expected
    assert read_lexicon(written(tmp_path, gzip.compress(lines.encode()), "en-de.txt.gz")) == expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ice cream Eis", "a tab between both if one has blanks is expected, it has 3 parts"),
        ("hill", "word, tab, translation is expected, it has 1 parts"),
        ("hill\t", "word, tab, translation is expected, it has 1 parts"),
        ("\tHügel", "word, tab, translation is expected, it has 1 parts"),
        ("hill\tHügel\t3", "word, tab, translation is expected, it has 3 parts"),
        (b"hill\tH\xfcgel", "not UTF-8 at byte 6"),
    ],
)
def test_a_line_that_is_no_word_with_a_translation_is_refused_by_its_number(tmp_path, line, problem):
    line = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, b"river Fluss\n\n" + line + b"\nsea Meer\n")
    with pytest.raises(DataError) as error:
        read_lexicon(path)
    assert str(error.value).startswith(f"{path} line 3: ")
    assert str(error.value).endswith(problem)
    assert read_lexicon(path, IGNORED) == {"river": ("Fluss",), "sea": ("Meer",)}


def test_files_without_words_missing_and_cut_off_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no words"):
        read_lexicon(written(tmp_path, " \n\n"))
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.txt"):
        read_lexicon(str(tmp_path / "nowhere.txt"))
    whole = gzip.compress("\n".join(f"word{n} Wort{n * n}" for n in range(2000)).encode())
    with pytest.raises(DataError, match="broken gzip file after line"):
        read_lexicon(written(tmp_path, whole[: len(whole) // 2], "en-de.txt.gz"))


FREEDICT = """00-database-dictfmt-1.13.0
English-German FreeDict Dictionary

Published at: http://freedict.org/

Changelog:

 * 2017-12-03: an earlier one
brook /bɹˈʊk/ <n>
Bach <masc>, Rinnsal (kleines (altes) Wort) <neut>; Flüsschen [poet.]
 see: {river}

      "small brooks" - kleine Bäche
         Note: in valleys
hot spring /hˈɒt spɹˈɪŋ/
Thermalquelle
a place where warm water comes out, of the ground
brook /bɹˈʊk/ <v>
dulden
bank /bˈaŋk/ /bæŋk/ <n, sg>
1. Ufer, Rand 2.
edge of a river
2. Bank
keeps money
hear /hˈiə/ (heard /hˈɜːd/ <>, heard /hˈɜːd/ <>) <v>
[ugs.]
hören
he/she wades /hiː ʃiː wˈeɪdz/
er/sie watet
wade (through) /wˈeɪd/ <v>
waten, etw./jdn. durchwaten

Institut <neut> für Wasser (Abk. IFW),  /ˈɪfv/
"""


def test_freedicts_dictionaries_are_read(tmp_path):
    expected = {
        "brook": ("Bach", "Rinnsal", "Flüsschen", "dulden"),
        "hot spring": ("Thermalquelle",),
        "bank": ("Ufer", "Rand", "Bank"),
        "hear": ("hören",),
        "wade": ("waten",),
    }
    assert read_lexicon(written(tmp_path, gzip.compress(FREEDICT.encode()), "en-de.dict.dz")) == expected
    assert read_lexicon(written(tmp_path, FREEDICT, "freedict-eng-deu.dict")) == expected
    with pytest.raises(DataError, match=r"en.dict holds no words: lines of a word /pronunciation/, then its transl"):
        read_lexicon(written(tmp_path, "brook\tBach\n", "en.dict"))
    with pytest.raises(DataError, match=r"en.dict line 2: not UTF-8"):
        read_lexicon(written(tmp_path, b"brook /b/\nF\xfc\n", "en.dict"))


def all_switched(lexicons, language, text):
    """The text with every known word replaced; lexicons are {(x, y): {word: translation}}."""
    lexicons = {pair: {word: (other,) for word, other in entries.items()} for pair, entries in lexicons.items()}
    return Switcher(lexicons, 1.0, 0).switch([text], language, "query", 0, np.arange(1))[0]


GERMAN = {"river": "fluss", "new york": "Neu York", "york": "Jork", "don't": "nicht", "e-mail": "Post", "the": "der"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the river", "der fluss"),
        ("The River, THE RIVER; thE", "Der Fluss, DER FLUSS; der"),
        ("rivers, riverbed, river2", "rivers, riverbed, river2"),
        ("(river)\t river's\nriver", "(fluss)\t fluss's\nfluss"),
        ("New  York or York: NEW\nYORK", "Neu York or Jork: NEU YORK"),
        ("I don’t, you DON'T", "I nicht, you NICHT"),
        ("one E-mail", "one Post"),
        ("", ""),
    ],
)
def test_the_longest_entry_is_taken_in_the_capitals_of_the_text(text, expected):
    assert all_switched({("en", "de"): GERMAN}, "en", text) == expected


def test_letters_are_compared_in_any_unicode_form():
    lexicons = {("de", "en"): {"stra\u00dfe": "road", "h\u00fcgel": "hill", "e\u0301te\u0301": "summer"}}
    assert all_switched(lexicons, "de", "STRASSE, hu\u0308gel, \u00e9t\u00e9, huge") == "ROAD, hill, summer, huge"


@pytest.mark.parametrize(
    ("language", "entries", "text", "expected"),
    [
        ("zh", {"喜": "joy", "喜欢": "like", "猫": "cat"}, "我喜欢猫。", "我 like cat。"),
        ("zh", {"手机": "phone"}, "AI手机2024年", "AI phone 2024年"),
        ("ja", {"コーヒー": "kahvi"}, "コーヒーを飲む", "kahvi を飲む"),
        ("th", {"น้ำ": "水"}, "ดื่มน้ำมาก", "ดื่ม水มาก"),
        ("th", {"นำ": "lead"}, "น้ำ", "น้ำ"),
    ],
)
def test_without_spaces_the_longest_entries_are_found_from_left_to_right(language, entries, text, expected):
    assert all_switched({(language, "xx"): entries}, language, text) == expected


def test_entries_with_numbers_or_without_a_word_in_front_are_left_out():
    entries = {"2024": ("MMXXIV",), "route 66": ("Weg",), "'s": ("sein",), "?": ("!",), "river": ("Fluss",)}
    vocabulary = Vocabulary({"de": entries})
    assert len(vocabulary) == 1
    assert [match.start for match in vocabulary.find("2024? route 66's river")] == [17]
