"""Long texts in pieces: nothing is lost, every piece fits, lines stay lines."""

from hypothesis import given
from hypothesis import strategies as st

from hbtrain.translation.languages import LANGUAGES
from hbtrain.translation.translator import join, split

TEXT = "One two. Three four? Five!\n\n  Six seven eight nine.\nTen. Eleven"


def fits(length):
    return lambda text: len(text) <= length


def test_lines_are_pieces_and_long_lines_are_cut_between_sentences():
    assert [piece.text for piece in split(TEXT, fits(100))] == [
        "One two. Three four? Five!",
        "Six seven eight nine.",
        "Ten. Eleven",
    ]
    assert [piece.text for piece in split(TEXT, fits(21))] == [
        "One two. Three four?",
        "Five!",
        "Six seven eight nine.",
        "Ten. Eleven",
    ]
    assert split(TEXT, fits(20)) is None  # one sentence has 21 letters


def test_chinese_sentences_need_no_blanks_and_get_none():
    pieces = split("灯塔很旧。船很多！海很蓝", fits(6))
    assert [piece.text for piece in pieces] == ["灯塔很旧。", "船很多！", "海很蓝"]
    assert join(pieces, ["Old.", "Many ships! ", "Blue"], LANGUAGES["de"]) == "Old. Many ships! Blue"
    pieces = split("Old. Many ships!\nBlue", fits(12))
    assert join(pieces, ["灯塔很旧。", "船很多！", "海很蓝"], LANGUAGES["zh"]) == "灯塔很旧。船很多！\n海很蓝"


@given(st.text(alphabet="ab .!?\n。", min_size=1, max_size=60).filter(str.strip), st.integers(1, 30))
def test_pieces_are_the_whole_text_and_fit(text, length):
    pieces = split(text, fits(length))
    if pieces is None:
        assert len(text.strip()) > length
        return
    assert "".join(piece.text + piece.gap for piece in pieces) == text.strip()
    assert all(0 < len(piece.text) <= length for piece in pieces)
    whole = join(pieces, [piece.text for piece in pieces], LANGUAGES["de"])
    assert "".join(whole.split()) == "".join(text.split())
    assert whole.count("\n") == text.strip().count("\n")
