"""Runs that start from a tiny backbone: their configuration, their initial folder, and what a rank does with them."""

from pathlib import Path

import torch

from hbtrain.config import from_tree, load_config, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.loop import Trainer
from hbtrain.training.verify import plain_loss, trained_gradient
from hbtrain.training.worker import Worker
from tests.distributed.ranks import run_ranks

LORA = {"rank": 2, "alpha": 4}


def configure(folder, backbone, stage=0, **overrides):
    """A run of four steps on two workers; its initial encoder is built in `folder` if it is not there."""
    settings = {
        "encoder.backbone": str(backbone),
        "encoder.max_query_tokens": 12,
        "encoder.max_passage_tokens": 20,
        "batching.global_batch_size": 7,
        "training.learning_rate": 0.01,
        "training.gradient_clipping": 0.0,
        "training.weight_decay": 0.0,
        "training.schedule": "constant",
        "training.steps": 4,
        "training.checkpoint_every": None,
        "training.deepspeed": {"zero_optimization": {"stage": stage}},
        "evaluation.benchmarks": [],
        "data.cache": str(folder / "cache"),
        "resources.workers": 2,
    }
    config = load_config("quickstart", {**settings, **overrides})
    if not (folder / "initial").exists():
        whole = config.encoder.model_copy(update={"lora": None, "precision": "fp32"})
        encoder = Encoder.build(whole, ParallelCorpus.from_config(config).every_text, 0)
        # As initialised, a tiny transformer embeds all texts alike: gradients would cancel to little but rounding.
        for parameter in encoder.model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(8)
        encoder.save(folder / "initial")
    return config


def worker(folder, model="model", checkpoints=None, events=None):
    """This rank's place in the run in `folder`; it goes on from what there is in `checkpoints`."""
    return Worker(
        group=ProcessGroup(),
        device=torch.device("cpu"),
        initial_model=Path(folder) / "initial",
        final_model=Path(folder) / model,
        emit=(lambda event: None) if events is None else events.append,
        upload=lambda part: part.store(),
        checkpoints=Path(checkpoints or Path(folder) / "none"),
    )


def gradient_and_training(tree, folder, model):
    """The gradient of step 0 as {name: numpy}, and the losses of the training that leaves `model`."""
    config = from_tree(tree)
    gradient = trained_gradient(config, worker(folder), 0)
    events = []
    own = worker(folder, model, events=events)
    Trainer(config, own).run()
    own.group.all_reduce_sum(torch.zeros(1))  # rank 0 has saved the model when all have come here
    losses = [event.metrics["train/loss"] for event in events if "train/loss" in event.metrics]
    return {name: g.numpy() for name, g in gradient.items()}, losses


def on_two_ranks(config, folder, model="model"):
    """Both ranks' (gradient, losses) of `gradient_and_training`."""
    return run_ranks(gradient_and_training, 2, to_tree(config), str(folder), model)


def plainly_trained(config, folder):
    """The same training by PyTorch alone, in this process, on whole batches; {name: weight} as a saved model has it."""
    encoder = load_for_training(config, folder / "initial")
    module, corpus = trainable(encoder, config).train(), ParallelCorpus.from_config(config)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.training.learning_rate, weight_decay=0.0)
    for step in range(config.training.steps):
        optimizer.zero_grad()
        plain_loss(config, encoder, module, corpus, step).backward()
        optimizer.step()
    encoder.save(folder / "plain")
    return weights(folder / "plain")


def assert_same_training(got, want):
    """Two trainings' {name: weight} agree to a fifth of one step of AdamW."""
    assert got.keys() == want.keys()
    for name, weight in want.items():
        # A bias of attention's keys changes no attention: its gradient is rounding, which AdamW makes steps of.
        if not name.endswith((".key.bias", ".k_lin.bias", ".k_proj.bias")):
            torch.testing.assert_close(got[name], weight, atol=2e-3, rtol=0, msg=lambda text, name=name: name + text)


def weights(folder):
    """{name: float32} of the encoder in a folder, on which hbtrain has no say."""
    from sentence_transformers import SentenceTransformer

    return {k: v.float() for k, v in SentenceTransformer(str(folder), device="cpu").state_dict().items()}
