"""Files that are line by line: blank lines, sides of different length, sides that do not go together."""

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.errors import DataError
from hbtrain.formats.line_pairs import is_sorted, read_line_pairs

WORDS = ["sun", "moon", "stars", "clouds", "wind", "and", "rain", "over", "hills", "rivers"]


def sentences(count, seed=0):
    """Pairs of made-up sentences, in which a word of one side is a longer word of the other."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 9))]
        found.append((" ".join(words).capitalize(), " ".join(word[::-1] + "en" for word in words)))
    return found


def write(folder, one, other):
    paths = folder / "xx", folder / "yy"
    for path, lines in zip(paths, (one, other), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tuple(map(str, paths))


def refusal(folder, one, other):
    with pytest.raises(DataError) as caught:
        read_line_pairs(*write(folder, one, other))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or give the pairs as one .tsv file")
    return str(caught.value)


LINES = st.lists(st.sampled_from(["", " ", "\ufeff", "a", "bb", "ccc"]), max_size=8)


@given(LINES, LINES)
def test_a_line_is_paired_with_the_line_of_its_number_or_all_are_refused(tmp_path_factory, one, other):
    texts = [[f"{line}{n}" if line.isalpha() else line for n, line in enumerate(side)] for side in (one, other)]
    files = write(tmp_path_factory.mktemp("pairs"), *texts)
    try:
        found = read_line_pairs(*files)
    except DataError:
        return
    full = [[n for n, line in enumerate(side) if line.isalpha()] for side in (one, other)]
    assert full[0] == full[1] != []
    assert [[line[-1] for line in side] for side in found] == [[str(n) for n in full[0]]] * 2


@pytest.mark.parametrize("lines", range(1, 13))
def test_files_may_be_shorter_than_the_gaps_that_are_looked_for(tmp_path, lines):
    one, other = (["x" * (length + n * n % 7 + 1) for n in range(lines)] for length in (1, 4))
    assert read_line_pairs(*write(tmp_path, one, other)) == (one, other)


def test_a_blank_line_in_one_file_is_named(tmp_path):
    one, other = zip(*sentences(6), strict=True)
    whole = read_line_pairs(*write(tmp_path, [*one[:3], "", *one[3:], "", ""], [*other[:3], " \t", *other[3:]]))
    assert whole == (list(one), list(other))
    says = refusal(tmp_path, [*one[:2], "", *one[2:]], [*other[:4], "\u3000", *other[4:]])
    assert "xx line 3 is blank, and line 3 of" in says
    assert "yy line 2 is blank" in refusal(tmp_path, one, [other[0], "", *other[1:]])


def test_sides_of_different_length_part_where_a_line_is_missing(tmp_path):
    one, other = zip(*sentences(40), strict=True)
    says = refusal(tmp_path, one, [*other[:25], *other[27:]])
    assert "40 sentences with 38 translations; by their lengths they part at about line " in says
    assert 23 <= int(says.partition("about line ")[2].partition(";")[0]) <= 29
    assert "0 sentences with 40 translations; line n" in refusal(tmp_path, [], other)


ORDERS = {
    "characters": str,
    "capitals": str.casefold,
    "letters": lambda line: line.casefold().replace(" ", ""),
    "length": len,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("count", [40, 200, 1000])
def test_a_side_that_was_sorted_is_named(tmp_path, order, backwards, count):
    one, other = zip(*sentences(count, count), strict=True)
    ordered = sorted(set(other), key=ORDERS[order], reverse=backwards)
    assert is_sorted(ordered)
    assert not is_sorted(one)
    ordered = sorted(other, key=ORDERS[order], reverse=backwards)
    assert "yy are sorted and do not go with the other side" in refusal(tmp_path, one, ordered)


@pytest.mark.parametrize("order", ORDERS)
def test_pairs_that_were_sorted_together_go_together(tmp_path, order):
    pairs = sorted(sentences(200), key=lambda pair: ORDERS[order](pair[1]))
    assert list(zip(*read_line_pairs(*write(tmp_path, *zip(*pairs, strict=True))), strict=True)) == pairs
    same = [f"word {letter}" for letter in "abcdefghijklmnop"]
    assert read_line_pairs(*write(tmp_path, same, same)) == (same, same)


def test_a_side_that_was_shuffled_or_has_lost_a_line_is_noticed_in_long_files(tmp_path):
    one, other = zip(*sentences(600), strict=True)
    assert read_line_pairs(*write(tmp_path, one, other)) == (list(one), list(other))
    shuffled = random.Random(1).sample(other, len(other))
    assert "their lengths have nothing in common" in refusal(tmp_path, one, shuffled)
    says = refusal(tmp_path, [*one[:100], *one[101:400], *one[401:]], [*other[:250], *other[251:]][:598])
    assert "a line of" in says
    assert "1 after its own" in says
    assert 100 <= int(says.partition("around line ")[2].partition(",")[0]) <= 200


@pytest.mark.shared
def test_translations_of_people_are_never_refused(shared, tmp_path):
    for name, key in (
        ("sentences/flores", "text"),
        ("parallel/desktop-help", "query"),
        ("parallel/office-help", "query"),
    ):
        rows = [json.loads(x)[key] for x in gzip.decompress((shared / f"{name}.jsonl.gz").read_bytes()).splitlines()]
        for language in ("de", "el", "zh"):
            pairs = [(row["es"], row[language]) for row in rows if "es" in row and language in row]
            own, other = ([" ".join(text.split()) for text in side] for side in zip(*pairs, strict=True))
            assert read_line_pairs(*write(tmp_path, own, other)) == (own, other)
            assert "sorted" in refusal(tmp_path, own, sorted(other))
