import gzip

import numpy as np
import pytest
from rich.console import Console

from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_tatoeba
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.tables import evaluation_table, scores_markdown
from tests.unit.evaluation_samples import HashEncoder

GERMAN, THAI = ["eins", "zwei", "drei", "vier"], ["neung", "song"]
ENGLISH = ["one", "two", "three", "four"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tatoeba.de-en.de").write_text("\n".join(GERMAN) + "\n")
    (tmp_path / "tatoeba.de-en.en").write_bytes(gzip.compress("\n".join(ENGLISH).encode()))
    (tmp_path / "th-en.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(THAI, ENGLISH, strict=False)))
    (tmp_path / "README").write_text("x")
    return tmp_path


def test_pairs_are_collections_asked_in_both_directions(folder):
    b = read_tatoeba(folder, "tatoeba")
    assert (b.candidates_kind, b.settings, b.languages) == ("sentence", ("cross",), ("de", "th", "en"))
    german, thai = b.collections()
    assert german.candidate_texts == german.query_texts == GERMAN + ENGLISH
    assert german.candidate_counts == {"de": 4, "en": 4}
    assert [places.tolist() for places in thai.relevant] == [[2], [3], [0], [1]]
    assert thai.question_ids == ["th-en/0", "th-en/1"] * 2


def test_accuracy_is_recall_at_one_in_each_direction(folder):
    encoder = HashEncoder(3)
    evaluation = evaluate(encoder, read_tatoeba(folder, "tatoeba"))

    def accuracy(asked, pool):
        scores = np.array([[encoder.vector(q) @ encoder.vector(p) for p in pool] for q in asked])
        return np.mean(scores.argmax(axis=1) == np.arange(len(asked)))

    wanted = {
        ("de", "en"): accuracy(GERMAN, ENGLISH),
        ("th", "en"): accuracy(THAI, ENGLISH[:2]),
        ("en", "de"): accuracy(ENGLISH, GERMAN),
        ("en", "th"): accuracy(ENGLISH[:2], THAI),
    }
    found = {(cell.query_language, cell.passage_language): cell.means["recall@1"] for cell in evaluation.cells}
    assert found == pytest.approx(wanted)
    assert len(set(wanted.values())) > 1
    metrics = evaluation.metrics
    assert metrics["tatoeba/cross/recall@1"] == pytest.approx(np.mean(list(wanted.values())))
    assert metrics["tatoeba/cross/recall@1/en"] == pytest.approx((wanted["en", "de"] + wanted["en", "th"]) / 2)
    assert {key.split("/")[1] for key in metrics} == {"cross"}


def test_the_table_has_both_directions(folder):
    evaluation = evaluate(HashEncoder(3), read_tatoeba(folder, "tatoeba"), trained_languages=["de"])
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(evaluation_table(evaluation))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    cells = {(c.query_language, c.passage_language): c.means["recall@1"] for c in evaluation.cells}
    assert [row[0] for row in rows] == ["all", "seen", "unseen", "de", "th *"]
    to, back = cells["de", "en"], cells["en", "de"]
    assert rows[3][1:] == [f"{to:.3f}", f"{back:.3f}", f"{(to + back) / 2:.3f}"]
    accuracy = evaluation.metrics["tatoeba/cross/recall@1"]
    assert rows[0][3] == f"{accuracy:.3f}"
    assert f"| accuracy | {accuracy:.3f} |" in scores_markdown([], [evaluation])


def test_languages_are_chosen_beside_english(folder):
    assert read_tatoeba(folder, "tatoeba", ["th", "en"]).languages == ("th", "en")
    with pytest.raises(DataError, match="'fr' is not in benchmark tatoeba .*it has de, th"):
        read_tatoeba(folder, "tatoeba", ["fr"])


def test_what_does_not_fit_is_said(folder, tmp_path_factory):
    with pytest.raises(DataError, match=r"holds no pairs such as tatoeba\.de-en\.de"):
        read_tatoeba(tmp_path_factory.mktemp("empty"), "tatoeba")
    (folder / "tatoeba.de-en.de").write_text("eins\nzwei\n")
    with pytest.raises(DataError, match=r"tatoeba\.de-en\.de.*: 2 sentences with 4 translations"):
        read_tatoeba(folder, "tatoeba").check()
    (folder / "tatoeba.de-en.de").unlink()
    with pytest.raises(DataError, match="not the side in de"):
        read_tatoeba(folder, "tatoeba").check()
    (folder / "th-en.tsv").write_text("neung\tone\nsong\n")
    with pytest.raises(DataError, match=r"th-en\.tsv line 2 is not a pair"):
        read_tatoeba(folder, "tatoeba", ["th"]).check()
    (folder / "tatoeba.th-en.tsv").write_text("neung\tone\n")
    with pytest.raises(DataError, match=r"both .*tatoeba\.th-en\.tsv and .*th-en\.tsv are for tsv"):
        read_tatoeba(folder, "tatoeba")


def test_a_sorted_side_is_refused_and_lasers_files_are_named(tmp_path):
    pairs = [(f"{n}. " + "eins " * n, "one " * n + f"({n})") for n in (4, 9, 1, 12, 6, 2, 11, 3, 8, 5, 10, 7)]
    for name, english in (
        ("whole", [x for _, x in pairs]),
        ("sorted", sorted((f"{len(x) * 7 % 10}: {x}" for _, x in pairs))),
    ):
        for side, lines in (("deu", [x for x, _ in pairs]), ("eng", english)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"tatoeba.deu-eng.{side}").write_text("".join(f"{x}\n" for x in lines))
    assert read_tatoeba(tmp_path / "whole", "tatoeba", ["de"]).languages == ("deu", "eng")
    read_tatoeba(tmp_path / "whole", "tatoeba").check()
    with pytest.raises(
        DataError, match=r"eng are sorted and do not go .* as LASER has them \(facebookresearch/LASER"
    ) as e:
        read_tatoeba(tmp_path / "sorted", "tatoeba").check()
    assert "\n" not in str(e.value)
