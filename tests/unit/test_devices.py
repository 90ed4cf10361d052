"""Devices are passed, never guessed; what is called exact is computed in float32; a pool need not fit a device."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import hbtrain
from hbtrain.config import load_config, to_tree
from hbtrain.config.loss import LossConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.devices import full_float32, visible_device, visible_devices
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Sizes
from hbtrain.retrieval import actors, top
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, search_store
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.scores import scoring_threads
from hbtrain.retrieval.top import DevicePool, top_scores
from hbtrain.retrieval.workers import LocalWorkers
from hbtrain.runs.preflight import preflight
from hbtrain.runs.ray_tasks import build, score
from hbtrain.training.verify import plain_gradient
from hbtrain.translation.model import find_translation_model
from hbtrain.translation.translator import Generation, Translator
from tests.unit.retrieval_samples import unit
from tests.unit.tiny_translators import TEXTS, save_nllb

GUESSES = r"cuda\.(is_available|device_count|current_device)\(|get_device_name\(|device=None"


@pytest.fixture
def two_gpus(monkeypatch):
    """torch says that there are two GPUs, and fails as soon as one is used."""

    def used(*_, **__):
        raise AssertionError("a GPU is used, and nobody gave one")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("_lazy_init", "current_device", "set_device", "synchronize", "current_stream", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, used)


@pytest.fixture
def config(cache):
    sizes = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16, "vocabulary_size": 300}
    changes = {"encoder.backbone": "transformer", "encoder.transformer": sizes, "batching.global_batch_size": 8}
    return load_config("quickstart", {"data.cache": str(cache), "data.validation": None, **changes})


def test_nothing_uses_a_gpu_that_it_was_not_given(config, tmp_path, two_gpus):
    assert visible_device() == "cuda", "as a command of the user's would take it"
    assert visible_devices() == ("cuda", "cuda:1"), "as an evaluation of the user's would take them"
    build(to_tree(config), str(tmp_path / "model"))
    score(to_tree(config), str(tmp_path / "model"))
    plain_gradient(config, tmp_path / "model", 0, torch.device("cpu"))
    encoder = Encoder.load(str(tmp_path / "model"))
    assert encoder.device.type == "cpu"
    store = embed_collection(encoder, ["one", "two", "three"], SearchOptions())
    for index in ("Flat", "HNSW4"):
        search_store(store, encoder.encode(["one"], "query"), 2, SearchOptions(index=index))
    corpus = ParallelCorpus.open(["demo-heldout"])
    next(Miner(encoder, corpus, MiningOptions()).rows(next(iter(corpus.sources.values()))))


def test_a_translator_uses_the_device_that_it_is_given(tmp_path, two_gpus):
    model = find_translation_model(str(save_nllb(tmp_path / "model")), "en", ["de"])
    Translator(model, "en", ["de"], Generation(beams=1)).translate(TEXTS[:1], "de")
    with pytest.raises(AssertionError, match="a GPU is used"):
        Translator(model, "en", ["de"], Generation(beams=1), "cuda")


def test_a_task_of_a_run_with_gpus_uses_its_gpu(config, tmp_path, two_gpus):
    build(to_tree(config), str(tmp_path / "model"))
    with_gpus = config.model_copy(update={"resources": config.resources.model_copy(update={"use_gpu": True})})
    with pytest.raises((ModelError, AssertionError), match="a GPU is used"):
        score(to_tree(with_gpus), str(tmp_path / "model"))


def test_workers_are_told_their_device():
    with LocalWorkers([lambda device: [device]] * 3, ["cuda", "cuda:1"]) as workers:
        assert workers.call_all("copy") == [["cuda"], ["cuda:1"], ["cuda"]]


class Meeting:
    """Does each task together with as many other workers as there are devices, or not at all."""

    def __init__(self, barrier):
        self.barrier = barrier

    def square(self, number):
        self.barrier.wait(20)
        return number**2


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_workers_on_several_devices_work_at_the_same_time(devices):
    barrier = threading.Barrier(devices)
    with LocalWorkers([lambda device: Meeting(barrier)] * devices, ["cuda"] * devices) as workers:
        assert workers.call_all("square", 3) == [9] * devices
        found = dict(workers.map_unordered("square", ((number,) for number in range(6))))
    assert found == {number: number**2 for number in range(6)}


def test_what_goes_wrong_on_one_of_several_devices_is_raised():
    barrier = threading.Barrier(2)
    barrier.abort()
    with LocalWorkers([lambda device: Meeting(barrier)] * 2, ["cuda"] * 2) as workers:
        with pytest.raises(threading.BrokenBarrierError):
            workers.call_all("square", 3)
        with pytest.raises(threading.BrokenBarrierError):
            list(workers.map_unordered("square", ((number,) for number in range(6))))


LOOKING = ("devices.py", "passage_index.py", "model_evaluation.py")


def test_only_commands_look_for_a_gpu():
    """And `hbtrain.modeling.devices`, by which they do, and what Python calls in the place of commands."""
    root = Path(hbtrain.__file__).parent
    rooms = ("modeling", "training", "retrieval", "evaluation", "translation", "runs")
    files = [file for room in rooms for file in sorted((root / room).rglob("*.py")) if file.name not in LOOKING]
    assert len(files) > 60
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(GUESSES, text), file
        assert "visible_device" not in text, file


@pytest.fixture
def precision():
    """What other tests find is as it was."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    torch.backends.fp32_precision = "none"


def settings():
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]


def set_all():
    torch.backends.fp32_precision = "tf32"


def set_new():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def set_old():
    torch.backends.cuda.matmul.allow_tf32 = True


WAYS = {
    "general": lambda: torch.set_float32_matmul_precision("medium"),
    "of cuBLAS": set_old,
    "of backends": set_new,
    "of all backends": set_all,
    "none": lambda: None,
}


@pytest.mark.parametrize("way", WAYS)
def test_full_float32_whatever_the_process_was_set_to(precision, way):
    WAYS[way]()
    before = settings()
    with full_float32():
        assert settings() == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "highest"
    assert settings() == before


def test_full_float32_lasts_until_the_last_of_several_threads_needs_it_no_more(precision):
    set_new()
    before, seen = settings(), []
    entered, left = threading.Event(), threading.Event()

    def longer():
        with full_float32():
            entered.set()
            left.wait(20)
            seen.append(settings())

    with full_float32():
        other = threading.Thread(target=longer)
        other.start()
        entered.wait(20)
    left.set()
    other.join()
    assert seen == [["ieee", "ieee"]]
    assert settings() == before


@pytest.mark.parametrize("way", ["general", "of backends"])
def test_what_is_called_exact_is_computed_in_float32(precision, monkeypatch, way):
    WAYS[way]()
    seen, multiply, mm = [], torch.Tensor.__matmul__, torch.mm

    def note(function):
        def noted(*arguments, **options):
            seen.append(settings())
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(torch.Tensor, "__matmul__", note(multiply))
    monkeypatch.setattr(torch, "mm", note(mm))
    vectors = unit(np.random.default_rng(0), 6, 4)
    top_scores(vectors, torch.from_numpy(vectors), [slice(0, 6)], 2)
    count = len(seen)
    own = Embedded(*(torch.from_numpy(vectors).requires_grad_() for _ in range(2)), torch.zeros(0, 4))
    batch_loss(own, Sizes([6], [0]), SingleProcess(), LossConfig(), None).total.backward()
    assert 0 < count < len(seen)
    with scoring_threads(1):
        seen.append(settings())
    assert seen == [["ieee", "ieee"]] * len(seen)


@pytest.mark.parametrize("spans", [[slice(0, 90)], [slice(3, 40)], [slice(0, 31), slice(50, 90)]])
@pytest.mark.parametrize("part_bytes", [0, 10 * 8 * 4, 31 * 8 * 4])
def test_a_pool_in_parts_gives_what_a_whole_one_gives(monkeypatch, spans, part_bytes):
    monkeypatch.setattr(top, "CHUNK_COLUMNS", 10)
    monkeypatch.setattr(top, "TILE_QUERIES", 4)
    rng = np.random.default_rng(0)
    p_ND = unit(rng, 90, 8)
    p_ND[60:70] = p_ND[20:30]  # ties
    q_BD = unit(rng, 11, 8)
    whole = DevicePool(p_ND, torch.device("cpu")).best(q_BD, spans, 12)
    parts = DevicePool(p_ND, torch.device("cpu"), part_bytes).best(q_BD, spans, 12)
    np.testing.assert_array_equal(parts.places, whole.places)
    np.testing.assert_array_equal(parts.scores, whole.scores)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"encoder.precision": "fp32", "resources.use_gpu": True}, "encoder.precision = 'bf16', and it is 'fp32'"),
        ({"encoder.precision": "bf16", "resources.use_gpu": False}, "resources.use_gpu = True, and it is False"),
    ],
)
def test_flash_attention_without_its_kernels_is_refused_before_anything_starts(cache, changes, key):
    config = load_config("quickstart", {"encoder.attention": "flash_attention_2", **changes})
    with pytest.raises(ConfigError, match=key):
        preflight(config)


class Ray:
    """A cluster whose GPUs, after a training, come back later than its CPUs."""

    def __init__(self, has, idle):
        self._has, self._idle = has, idle

    def cluster_resources(self):
        return self._has

    def available_resources(self):
        return self._idle.pop(0) if len(self._idle) > 1 else self._idle[0]


@pytest.mark.parametrize(
    ("has", "idle", "actors_", "gpus"),
    [
        ({"CPU": 8, "GPU": 2}, [{"CPU": 8}, {"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 2}], 2, 1),
        ({"CPU": 8, "GPU": 2}, [{"GPU": 2}, {"CPU": 8, "GPU": 2}], 2, 1),
        ({"CPU": 8, "GPU": 1}, [{"CPU": 8}, {"CPU": 8, "GPU": 1}], 2, 0.5),
        ({"CPU": 8}, [{"CPU": 8}], 2, 0),
    ],
)
def test_actors_wait_for_gpus_as_for_cpus(monkeypatch, has, idle, actors_, gpus):
    import ray

    cluster = Ray(has, idle)
    monkeypatch.setattr(ray, "cluster_resources", cluster.cluster_resources)
    monkeypatch.setattr(ray, "available_resources", cluster.available_resources)
    monkeypatch.setattr(actors.time, "sleep", lambda seconds: None)
    assert actors._gpus_of_an_actor(actors.Demand("--actors 2", actors_, 1.0)) == gpus
