"""What an actor makes of a block, without Ray: measured translations, through Arrow and back."""

import pyarrow as pa
import pytest
from ray.exceptions import RayError, RayTaskError

from hbtrain.errors import TranslationError
from hbtrain.translation.blocks import Block, Result, blocks_of, load
from hbtrain.translation.languages import LANGUAGES, Identifier
from hbtrain.translation.model import find_translation_model
from hbtrain.translation.ray_pipeline import Work, _errors_in_words, _Translate
from hbtrain.translation.scores import score
from hbtrain.translation.texts import collect_texts
from hbtrain.translation.translator import Generation, Output, Translator
from tests.unit.tiny_translators import TEXTS, save_nllb

OUTPUTS = [Output("die Katze\u2028schläft \U0001f408 \0", True), None, Output("", True), Output("ein Haus " * 9, False)]


def through_arrow(row):
    return pa.Table.from_pylist([row]).to_pylist()[0]


@pytest.fixture
def actor(tmp_path):
    """Makes an actor, and gives it with the blocks of TEXTS."""
    folder = str(save_nllb(tmp_path / "model"))
    texts = collect_texts(
        [{"id": str(i), "text": {"en": text}} for i, text in enumerate(TEXTS)],
        "en",
        ["de"],
        tmp_path,
        lambda rows: None,
    )

    def make(identify=False, **generation):
        model = find_translation_model(folder, "en", ["de"])
        return _Translate(Work(model, "en", ("de",), Generation(beams=1, **generation), identify), texts)

    return make, blocks_of(texts, 2)


@pytest.mark.parametrize("identify", [False, True])
def test_translations_are_measured_and_survive_arrow(actor, monkeypatch, identify):
    make, blocks = actor
    said = dict(zip(TEXTS, OUTPUTS, strict=True))
    monkeypatch.setattr(Translator, "translate", lambda self, texts, target: [said[text] for text in texts])
    own, identifier = make(identify), Identifier() if identify else None
    rows = [through_arrow(own(through_arrow({"block": vars(block)}))) for block in blocks]
    assert [Block(**row["block"]) for row in rows] == blocks
    assert [result for row in rows for result in load(row["results"])] == [
        Result(None, None)
        if output is None
        else Result(
            output.text, score(text, output.text, LANGUAGES["en"], LANGUAGES["de"], identifier), output.finished
        )
        for text, output in said.items()
    ]


def test_a_block_of_texts_that_are_all_too_long_survives_arrow(actor):
    make, blocks = actor
    own = make(max_tokens=4)
    for block in blocks:
        assert load(through_arrow(own(through_arrow({"block": vars(block)})))["results"]) == [Result(None, None)] * 2


def test_weights_that_know_no_end_leave_all_unfinished(actor):
    make, (block, _) = actor
    assert [result.finished for result in load(make()({"block": vars(block)})["results"])] == [False, False]


def test_what_the_user_can_mend_comes_back_as_a_value(actor, tmp_path):
    make, (block, _) = actor
    own = make()
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"no weights")
    row = through_arrow(own(through_arrow({"block": vars(block)})))
    assert row["error"] == "ModelError"
    assert row["results"].startswith(f"--model {tmp_path / 'model'} cannot be loaded: ")
    assert own({"block": vars(block)}) == row, "and so all other blocks"
    weights.write_bytes(whole)
    (tmp_path / "text.arrow").unlink()
    assert through_arrow(make()({"block": vars(block)}))["error"] == "StorageError"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RayError("a node was lost\nsee the documentation of Ray"), "a node was lost"),
        (RayTaskError("map", "Traceback ...\nOSError: no such device", OSError("no such device")), "no such device"),
        (RayTaskError("map", "Traceback ...\nOSError: no such device", None), "OSError: no such device"),
    ],
)
def test_an_error_of_ray_is_told_by_its_cause(error, reason):
    said = f"^translating stopped: {reason}; where memory is short"
    with pytest.raises(TranslationError, match=said), _errors_in_words():
        raise error
