"""The formulas of hbtrain.planning against real models, autograd's saved tensors, and allocations of the loss."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    XLMRobertaConfig,
)

from hbtrain.config import load_config
from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Sizes
from hbtrain.planning.communication import Messages, embedding_messages, encoder_flops, forward_flops
from hbtrain.planning.estimate import backbone_shape, estimate
from hbtrain.planning.memory import Zero, activation_bytes, loss_bytes, model_states
from hbtrain.planning.shape import BackboneShape, static_shape, transformers_shape
from tests.bench.scale import Hardware, Workload, largest_batch, simulate
from tests.bench.simulate_scale import XLMR_BASE, XLMR_LARGE, tables, written
from tests.unit.tiny_models import encoder_config, save_bert, save_decoder, save_labse

SMALL = {"vocab_size": 101, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
DECODER = {**SMALL, "intermediate_size": 40, "num_key_value_heads": 2}
CONFIGS = [
    XLMRobertaConfig(**XLMR_BASE),
    XLMRobertaConfig(**XLMR_LARGE),
    BertConfig(**SMALL, intermediate_size=40),
    DistilBertConfig(vocab_size=101, n_layers=2, dim=24, n_heads=4, hidden_dim=40),
    LlamaConfig(**DECODER),
    Qwen2Config(**DECODER),
    Qwen3Config(**DECODER, head_dim=8),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.model_type}-{c.hidden_size}")
def test_parameters_are_the_real_models(config):
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    shape = transformers_shape(config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    matrices = [
        p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "pooler" not in name
    ]
    assert shape.matrix_parameters == sum(p.numel() for p in matrices)


def test_an_unknown_architecture_has_no_shape():
    assert transformers_shape({"model_type": "gpt_bigcode", "hidden_size": 8}) is None
    assert transformers_shape({"model_type": "bert", "hidden_size": 8}) is None


@pytest.mark.parametrize("save", [save_bert, save_labse, save_decoder])
def test_the_shape_of_a_folder_is_the_loaded_models(tmp_path, save):
    from sentence_transformers import SentenceTransformer

    folder = save(tmp_path / "model")
    model = SentenceTransformer(str(folder), device="cpu")
    shape = backbone_shape(encoder_config(str(folder)))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.dimension == model.get_embedding_dimension()


def test_built_backbones_have_the_shape_of_their_configuration():
    from hbtrain.modeling.encoder import Encoder

    words = [f"word{i} {chr(0x4E00 + i)}" for i in range(300)]
    for backbone in ("static", "transformer"):
        model = Encoder.build(encoder_config(backbone), lambda: words, 0).model
        pieces = max(p.shape[0] for p in model.parameters())
        section = {**encoder_config(backbone).model_dump()[backbone], "vocabulary_size": pieces}
        shape = backbone_shape(encoder_config(backbone, **{backbone: section}))
        assert shape.parameters == sum(p.numel() for p in model.parameters())
        assert backbone_shape(encoder_config(backbone)).parameters >= shape.parameters, "the vocabulary at its largest"


def saved_bytes(model, inputs):
    """Bytes that autograd keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(x):
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(**inputs)
    return sum(kept.values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_what_autograd_keeps(attention):
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )
    model = AutoModel.from_config(config, attn_implementation=attention).train()
    shape = transformers_shape(config.to_dict())
    texts, length = 4, 48
    inputs = {"input_ids": torch.zeros(texts, length, dtype=torch.long), "attention_mask": torch.ones(texts, length)}
    seen = saved_bytes(model, inputs)
    told = activation_bytes(shape, texts * length, 4, dropout=False, score_length=length if attention == "eager" else 0)
    assert told == pytest.approx(seen, rel=0.15)


def test_activations_of_the_source():
    h, layers, tokens = 1024, 24, 1000
    shape = BackboneShape(h, 0, layers=layers, hidden=h, heads=16, intermediate=4 * h)
    assert activation_bytes(shape, tokens, 2) == 34 * h * layers * tokens
    assert activation_bytes(shape, tokens, 2, checkpointing=True) == (2 * layers + 34) * h * tokens
    assert activation_bytes(shape, tokens, 2, score_length=512) == (34 * h + 5 * 16 * 512) * layers * tokens


def allocated_bytes(work):
    """The most that is allocated at one time while `work` runs, by torch's own record."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize(("pairs", "dimension", "rows"), [(1024, 96, 128), (512, 64, 512), (700, 32, 256)])
def test_memory_of_the_loss_is_what_it_allocates(pairs, dimension, rows):
    q, p = (normalize(torch.randn(pairs, dimension), dim=1).requires_grad_() for _ in range(2))
    own, config = Embedded(q, p, q.new_zeros(0, dimension)), LossConfig(block_rows=rows)

    def work():
        batch_loss(own, Sizes([pairs], [0]), SingleProcess(), config, None).total.backward()

    work()
    q.grad = p.grad = None
    assert loss_bytes(pairs, pairs, dimension, rows, 1) == pytest.approx(allocated_bytes(work), rel=0.03)


def test_memory_of_the_loss_is_near_the_benchmarks_figure():
    """bench_loss.py --pairs 16384 --dim 768 measured 148 MiB of main memory, libraries' own buffers included."""
    assert loss_bytes(16384, 16384, 768, 512, 1) / 2**20 == pytest.approx(148, rel=0.15)


def test_states_of_the_zero_paper_in_bf16():
    """arXiv 1910.02054, figure 1: 16 bytes a parameter, here with the bucket taken out."""
    shape = static_shape(1000, 1000)
    for stage, world_size, each in ((0, 64, 16), (2, 64, 2 + 14 / 64), (3, 64, 16 / 64)):
        states = model_states(shape, 10**6, world_size, Zero(stage, buckets=0), 2)
        assert states.standing + states.gradients == pytest.approx(each * 10**6, rel=1e-3)


def test_offloading_moves_bytes_and_keeps_their_sum():
    shape = static_shape(1000, 100)
    on_device = model_states(shape, 100_000, 4, Zero(3, buckets=0), 2)
    offloaded = model_states(shape, 100_000, 4, Zero(3, True, True, buckets=0), 2)
    assert offloaded.standing + offloaded.gradients == 0
    assert offloaded.host == on_device.standing + on_device.gradients + on_device.step


def test_a_ring_sends_what_its_source_says():
    assert Messages(all_reduce=800).sent(8) == 1400
    assert Messages(all_gather=800).sent(8) == Messages(reduce_scatter=800).sent(8) == 700
    assert Messages(10**6, 10**6, 10**6).sent(1) == 0


def test_flops_of_the_source():
    """6 N a token and 2 N for every forward pass that is run again (attention's scores left out)."""
    shape = BackboneShape(8, 0, layers=2, hidden=0, linear=((10, 20), (20, 10)))
    assert forward_flops(shape, 5, 7) == 2 * 800 * 5
    for checkpointing, cached, each in ((False, False, 6), (True, False, 8), (False, True, 8), (True, True, 10)):
        assert encoder_flops(shape, {7: 5}, checkpointing, cached) == each * 800 * 35


def test_torch_counts_the_same_flops():
    from torch.utils.flop_counter import FlopCounterMode

    config = BertConfig(**{**SMALL, "num_hidden_layers": 2}, intermediate_size=96, attn_implementation="eager")
    model = AutoModel.from_config(config, add_pooling_layer=False).train()
    shape = transformers_shape(config.to_dict())
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(3, 16, dtype=torch.long)).last_hidden_state.sum().backward()
    assert encoder_flops(shape, {16: 3}) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_largest_batch_is_where_the_share_is_reached():
    shape, work, hardware = transformers_shape(XLMRobertaConfig(**XLMR_LARGE).to_dict()), Workload(), Hardware()
    batch = largest_batch(shape, 0.1, work, hardware)
    workers = batch // work.pairs_per_rank
    assert workers > hardware.ranks_per_node
    assert simulate(shape, workers, Zero(1), work, hardware).loss_share <= 0.1
    assert simulate(shape, workers + 2, Zero(1), work, hardware).loss_share > 0.1


def test_estimate_of_a_recipe():
    config = load_config("quickstart", {})
    needs = estimate(config)
    vocabulary, dimension = 4000, 256
    assert needs.parameters == needs.trained == vocabulary * dimension
    assert needs.workers == 2
    assert needs.pairs == 128 * 400
    assert needs.tokens == 128 * 400 * (64 + 256)
    messages = 2 * needs.parameters * 4 + needs.parameters * 4  # ZeRO 1: all-reduce, gather
    loss = 2 * embedding_messages(128, dimension).all_gather
    assert needs.sent == (messages + loss) // 2
    assert needs.gpu_hours == 0
    assert needs.states.buckets == 4 * needs.parameters, "no GPU: what is not written to takes no memory"
    first, second = needs.lines()
    assert first.startswith("a worker needs at most ")
    assert "51,200 pairs" in second
    assert "GPU-hours" not in second
    assert "estimate.gpu_hours" not in needs.tags()


def test_an_estimate_of_adapters_trains_little(tmp_path):
    folder = str(save_bert(tmp_path / "bert"))
    whole = estimate(load_config("quickstart", {"encoder.backbone": folder}))
    lora = estimate(load_config("quickstart", {"encoder.backbone": folder, "encoder.lora": {"rank": 2}}))
    frozen = estimate(load_config("quickstart", {"encoder.backbone": folder, "encoder.freeze_embeddings": True}))
    assert whole.trained == whole.parameters
    assert lora.trained < frozen.trained < whole.trained
    assert lora.parameters == whole.parameters + lora.trained
    assert lora.states.optimizer < whole.states.optimizer


def test_muon_has_one_moment_for_the_matrices_of_layers_that_are_trained(tmp_path):
    folder = str(save_bert(tmp_path / "bert"))

    def optimizer_bytes(**changes):
        usual = {"encoder.backbone": folder, "training.deepspeed": None, **changes}
        return estimate(load_config("quickstart", usual)).states.optimizer

    a_layer = 4 * 16 * 16 + 2 * 16 * 24
    saved = [
        optimizer_bytes(**more) - optimizer_bytes(**more, **{"training.optimizer": "muon"})
        for more in ({}, {"encoder.freeze_layers": 1})
    ]
    assert saved == [4 * 2 * a_layer, 4 * a_layer]


def test_an_estimate_with_gpus_says_by_what_rate():
    config = load_config("quickstart", {"resources.use_gpu": True, "encoder.backbone": "transformer"})
    needs = estimate(config)
    assert needs.states.buckets == 4 * 500_000_000
    assert needs.gpu_hours == pytest.approx(needs.flops / (0.4 * 19.5e12) / 3600)
    assert "GPU-hours at 40% of 19.5 TFLOP/s" in needs.lines()[1]


def test_no_estimate_of_what_is_not_known():
    assert estimate(load_config("quickstart", {"encoder.backbone": "./nowhere"})) is None


def test_the_page_holds_the_scripts_tables():
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert written(page, tables(Workload(), Hardware())) == page, (
        "run tests/bench/simulate_scale.py --write docs/scale.md"
    )
