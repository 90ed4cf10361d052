import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.judged import read_judged
from tests.unit.evaluation_samples import only
from tests.unit.judged_samples import DOCUMENTS, mr_tydi


def read(folder, languages=None, split="test"):
    return read_judged("mr-tydi", folder, "mr-tydi", languages, cache=folder / "cache", split=split)


def test_folders_are_languages(tmp_path):
    mr_tydi(mr_tydi(tmp_path), "thai")
    b = read(tmp_path)
    assert (b.candidates_kind, b.settings, b.languages) == ("title+text", ("mono",), ("sw", "th"))
    swahili, _ = b.collections()
    assert list(swahili.candidate_texts) == [f"{title}\n\n{text}" for _, title, text in DOCUMENTS]
    assert [places.tolist() for places in swahili.relevant] == [[0, 1], [2]]
    assert read(tmp_path, ["th"]).languages == ("th",)


def test_a_language_alone_may_be_the_folder(tmp_path):
    assert only(read(mr_tydi(tmp_path) / "mrtydi-v1.1-swahili")).languages == ("sw",)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds no folders such as mrtydi-v1\.1-swahili"):
        read(tmp_path)
    mr_tydi(tmp_path)
    with pytest.raises(DataError, match="'ko' is not in benchmark mr-tydi .*it has sw"):
        read(tmp_path, ["ko"])
    with pytest.raises(DataError, match=r"has a folder in sw but no topic\.dev\.tsv \(plain or \.gz\)"):
        read(tmp_path, split="dev")
    (tmp_path / "mrtydi-v1.0-swahili").mkdir()
    (tmp_path / "mrtydi-v1.0-swahili" / "README").touch()
    with pytest.raises(DataError, match="both .*v1.0-swahili/ and .*v1.1-swahili/ are for sw; leave one out"):
        read(tmp_path)
