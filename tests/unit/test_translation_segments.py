"""Long texts in segments: nothing is lost, every segment fits, line ends stay."""

from hypothesis import given
from hypothesis import strategies as st

from hbtrain.translation.languages import LANGUAGES
from hbtrain.translation.translator import join, split

TEXT = "One two. Three four? Five!\n\n  Six seven eight nine.\nTen. Eleven"


def fits(length):
    return lambda text: len(text) <= length


def test_lines_are_pieces_and_long_lines_are_cut_between_sentences():
    assert [segment.text for segment in split(TEXT, fits(100))] == [
        "One two. Three four? Five!",
        "Six seven eight nine.",
        "Ten. Eleven",
    ]
    assert [segment.text for segment in split(TEXT, fits(21))] == [
        "One two. Three four?",
        "Five!",
        "Six seven eight nine.",
        "Ten. Eleven",
    ]
    assert split(TEXT, fits(20)) is None  # one sentence has 21 letters


def test_chinese_sentences_need_no_blanks_and_get_none():
    segments = split("灯塔很旧。船很多！海很蓝", fits(6))
    assert [segment.text for segment in segments] == ["灯塔很旧。", "船很多！", "海很蓝"]
    assert join(segments, ["Old.", "Many ships! ", "Blue"], LANGUAGES["de"]) == "Old. Many ships! Blue"
    segments = split("Old. Many ships!\nBlue", fits(12))
    assert join(segments, ["灯塔很旧。", "船很多！", "海很蓝"], LANGUAGES["zh"]) == "灯塔很旧。船很多！\n海很蓝"


@given(st.text(alphabet="ab .!?\n。", min_size=1, max_size=60).filter(str.strip), st.integers(1, 30))
def test_pieces_are_the_whole_text_and_fit(text, length):
    segments = split(text, fits(length))
    if segments is None:
        assert len(text.strip()) > length
        return
    assert "".join(segment.text + segment.separator for segment in segments) == text.strip()
    assert all(0 < len(segment.text) <= length for segment in segments)
    whole = join(segments, [segment.text for segment in segments], LANGUAGES["de"])
    assert "".join(whole.split()) == "".join(text.split())
    assert whole.count("\n") == text.strip().count("\n")
