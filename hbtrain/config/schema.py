"""The configuration: typed, immutable, validated; its keys are the same in recipes, flags, sweeps and MLflow.

Every dotted path through these models (`batching.alpha`) is a command-line flag, a key of a sweep's space and
a parameter in MLflow. This module imports neither torch nor ray, so that a recipe can be checked anywhere.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hbtrain.config.batching import BatchingConfig
from hbtrain.config.encoder import EncoderConfig, Precision
from hbtrain.config.loss import LossConfig
from hbtrain.config.section import Float, Fraction, Int, NonNegativeInt, PositiveFloat, PositiveInt, Section
from hbtrain.errors import StorageError
from hbtrain.storage import is_remote, place

FLAGS = "flags"
"""Validation context of options given as a command's flags; their errors name flags instead of keys."""


def _checked(uri: str) -> str:
    """Parse the URI of a storage folder, and return it in its canonical form."""
    try:
        return str(place(uri))
    except StorageError as error:
        raise ValueError(str(error)) from None


class DataConfig(Section):
    """The data of training and validation."""

    sources: tuple[str, ...] = ()
    """Paths or s3:// URIs of parallel JSON lines (plain or .gz), folders of `hbtrain prepare`, data sets by name (such
    as `hub:mmarco?languages=ar,de,en`), or `demo` for the corpus that ships with hbtrain."""
    languages: tuple[str, ...] | None = None
    """Training languages; none given means every language of the sources."""
    validation: str | None = None
    """A source whose loss is watched during training; never trained on. `demo-heldout` is the demo's own."""
    cache: str | None = None
    """Folder of memory-mapped corpora, and of what was fetched; by default `$HBTRAIN_CACHE` or `~/.cache/hbtrain`."""
    catalogue: tuple[str, ...] = ()
    """Files that describe data sets of your own, which then have names as those of `hbtrain data list` do."""

    @field_validator("sources", "languages", "catalogue", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("cache")
    @classmethod
    def _is_here(cls, value: str | None) -> str | None:
        if value is not None and is_remote(value):
            raise ValueError("must be a folder of the machine; what is in remote storage is copied into it")
        return value

    @field_validator("languages")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"a language is listed twice in {list(value)}")
        if value is not None and not value:
            raise ValueError("the list is empty; leave the key out for every language of the sources")
        return value


class TrainingConfig(Section):
    """Optimisation by DeepSpeed, validation, checkpoints and restarts."""

    steps: PositiveInt = 1000
    """Steps of the optimizer, each with one global batch."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of a transformer's layers (arXiv 2502.16982), and AdamW for all else, at the same learning
    rate; without ZeRO only."""
    learning_rate: PositiveFloat = 3e-5
    """The highest of the schedule."""
    weight_decay: Annotated[Float, Field(ge=0.0)] = 0.01
    """Decoupled, as AdamW has it; biases and norms are left out."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of AdamW's means of gradients and of their squares."""
    average: Annotated[Float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights over the steps, such as 0.999: what is validated, evaluated
    and saved is then the average. None: the weights themselves."""
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"] = "linear"
    """How the learning rate goes on after the warm-up, as transformers' `lr_scheduler_type` of that name."""
    warmup_steps: NonNegativeInt = 0
    """First steps, over which the learning rate rises from 0."""
    gradient_clipping: Annotated[Float, Field(ge=0.0)] = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    chunks: PositiveInt = 1
    """Parts that a rank embeds one after the other (gradient cache, arXiv 2101.06983): the same gradient, the memory
    of one part. 1 keeps the whole graph."""
    chunk_tokens: PositiveInt | None = None
    """Instead of `chunks`: as many of them as keep each below this number of tokens, padding included where it is
    computed."""
    deepspeed: str | dict[str, Any] | None = None
    """A DeepSpeed configuration: a JSON file, or the same keys in the recipe. Checked against the rest."""
    log_every: PositiveInt = 10
    """Steps from one set of figures in MLflow and on screen to the next."""
    validate_every: PositiveInt | None = None
    """Steps from one validation to the next; none means never."""
    validation_batches: PositiveInt = 8
    """Batches of `data.validation` whose mean loss is a validation."""
    patience: PositiveInt | None = None
    """Validations, or with `evaluation.keep_best` evaluations, without improvement after which training stops; none
    means never."""
    checkpoint_every: PositiveInt | None = None
    """Steps from one checkpoint to the next; none means that one is made only where a signal ends the training."""
    keep_checkpoints: PositiveInt = 2
    """The newest checkpoints that are kept; older ones are deleted."""
    gradient_cosine_every: PositiveInt | None = None
    """Steps from one cosine between the gradients of a monolingual and of a cross-lingual batch to the next
    (`train/gradient_cosine`): above 0 both pull the same way. None: it is not computed."""
    max_failures: Annotated[Int, Field(ge=-1)] = 3
    """Restarts after deaths of workers, in a row without a newer checkpoint, before the run is given up; -1 means
    without end."""
    step_timeout_s: PositiveFloat = 1800.0
    """Time without progress (a phase of a step, a checkpoint) after which a worker counts as hanging: it is named and
    killed, and the workers are restarted from the last checkpoint. While they load they have ten minutes at least."""


class ResourcesConfig(Section):
    """The workers, and the Ray cluster that they run on."""

    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    """Workers of the run, or [fewest, most]: then workers may come and go while it runs."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPU cores that Ray reserves for a worker; as many threads compute on CPUs."""
    use_gpu: bool = False
    """Whether each worker has a GPU."""
    address: str | None = None
    """A Ray cluster's address; by default `$RAY_ADDRESS`, or a new local cluster."""
    wait_s: Annotated[Float, Field(ge=0.0)] = 0.0
    """How long to wait for nodes where the cluster has too few for the fewest workers; an autoscaler is asked to add
    them. 0: say so at once."""

    @field_validator("workers")
    @classmethod
    def _in_order(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"[fewest, most] = {list(value)}: the first must not be above the second")
        return value

    @property
    def min_workers(self) -> int:
        """The fewest workers that the run goes on with."""
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def max_workers(self) -> int:
        """The most workers that the run makes use of."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers


class EvaluationConfig(Section):
    """What a model is evaluated on, and how; also the options of `hbtrain evaluate`, given as flags."""

    benchmarks: tuple[str, ...] = ()
    """`demo`; a data set by name, such as `xquad-r` or `miracl?languages=sw,yo` (`hbtrain data list` names them); or
    `form=folder`, such as `xquad-r=data/xquad-r`: form is xquad-r, mlqa-r, lareqa, squad, miracl, mr-tydi, tatoeba,
    beir, mteb, mteb-parallel, belebele, ciral, or parallel with a file. The folder or file may be an s3://, gs:// or
    hf:// URI."""
    before: bool = True
    """Evaluate the model before training as well."""
    every: PositiveInt | None = None
    """Evaluate the encoder every so many steps of training as well, on the workers; none means never."""
    during: tuple[str, ...] | None = None
    """The benchmarks, by name, that `every` evaluates; by default those of `benchmarks` that are small."""
    keep_best: str | None = None
    """The score, such as `xquad-r/multi/map`, by which the trained model is chosen: the best encoder of those that
    `every` evaluates, the last step's included."""
    batch_size: PositiveInt | None = None
    """The most texts encoded at one time; by default 128 on CPUs, and on GPUs as many as 65,536 tokens are."""
    precision: Precision | None = None
    """In which transformers embed texts; by default bf16 on GPUs that have it, else as the model's files say."""
    candidates: Literal["sentence", "sentence+context"] = "sentence"
    """What a candidate of XQuAD-R, MLQA-R and their like is: a sentence, or a sentence with its paragraph."""
    in_domain: str | None = None
    """The benchmark by its name, or a domain of one as `benchmark@domain`, that MRR on the others is compared with."""
    index: str | None = None
    """An index of FAISS over embeddings kept on disk, such as `IVF4096,Flat`; by default all ranks are exact."""
    index_parameters: str = ""
    """Parameters of the index's search, such as `nprobe=16`."""
    depth: PositiveInt = 100
    """Candidates of a query that the index finds."""
    actors: NonNegativeInt = 0
    """Ray actors that encode, and then rank or index a part of the candidates each; 0: the evaluating task itself."""
    embeddings: str | None = None
    """An s3:// URI below which embeddings are kept for other machines, with `index` or `actors`."""
    run_depth: NonNegativeInt = 10
    """Candidates of a query in the run files of the trained model; 0: no run files."""
    ignore_identical_ids: bool = False
    """Leave the document that has a query's own id out of its ranking, for queries that are documents themselves
    (ArguAna, Quora)."""
    allow_missing_documents: bool = False
    """Count relevant documents that the corpus lacks as never found, instead of refusing the benchmark."""

    @field_validator("embeddings")
    @classmethod
    def _is_remote(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not is_remote(value):
            raise ValueError("must be an s3:// URI; a folder of embeddings is data.cache")
        return _checked(value)

    @field_validator("benchmarks", "during", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agree(self, info: ValidationInfo) -> EvaluationConfig:
        index, actors = called("index", info.context), called("actors", info.context)
        if self.index is None and self.index_parameters:
            given = f"{called('index_parameters', info.context)} {self.index_parameters}"
            raise ValueError(f"{given}: they are of an index; set {index}, to IVF4096,Flat for one")
        if self.embeddings is not None and not self.on_disk:
            given = f"{called('embeddings', info.context)} {self.embeddings}"
            raise ValueError(f"{given}: for embeddings on disk; set {index} or {actors}")
        if self.every is None and (self.during is not None or self.keep_best is not None):
            key = "during" if self.during is not None else "keep_best"
            raise ValueError(f"evaluation.{key} needs evaluation.every, the steps between two evaluations")
        if self.every is not None and self.index is not None:
            raise ValueError(
                "evaluation.every ranks exactly, and its scores and those of evaluation.index would not be of one "
                "curve; leave out one of them"
            )
        return self

    @property
    def on_disk(self) -> bool:
        """Whether the candidates' embeddings are kept on disk, not in memory."""
        return self.index is not None or self.actors > 0


def called(field: str, context: Any) -> str:
    """How users write a field of `evaluation`: as a flag in the validation context FLAGS, else as a dotted key."""
    return f"--{field.replace('_', '-')}" if context == FLAGS else f"evaluation.{field}"


# Every model has a class method of this name, from `abc`, which nothing here calls.
warnings.filterwarnings("ignore", 'Field name "register" in "TrackingConfig" shadows', UserWarning)


class TrackingConfig(Section):
    """Tracking of the run in MLflow."""

    uri: str | None = None
    """MLflow tracking URI; by default `$MLFLOW_TRACKING_URI`, or SQLite in the storage folder, where that is one."""
    experiment: str = Field(default="hbtrain", min_length=1, max_length=256)
    """MLflow experiment that the run is logged to; made if need be."""
    run_name: str | None = None
    """Name of the run in MLflow; by default that of its folder."""
    parent_run_id: str | None = None
    """MLflow run that this one is nested under, as a sweep's trials are."""
    log_model: bool = True
    """Store the trained model in MLflow, in the form that `mlflow.pyfunc` loads and serves."""
    register: str | None = None
    """Name in MLflow's registry of models, under which the trained model becomes a new version; of a sweep, that of its
    best point."""

    @field_validator("register")
    @classmethod
    def _is_name(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or {"/", ":"} & set(value) or value.startswith(".")):
            raise ValueError("a registered model's name is a text without / and :, and begins with no dot")
        return value


class Config(Section):
    """The configuration of a whole run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Beginning of the run's folder; a run of another name is another run."""
    seed: NonNegativeInt = 0
    """Of the batches, of weights that are drawn, and of dropout."""
    data: DataConfig = DataConfig()
    batching: BatchingConfig = BatchingConfig()
    encoder: EncoderConfig = EncoderConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    resources: ResourcesConfig = ResourcesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: str = "runs"
    """Folder of runs (checkpoints, models, results) that every node sees; or s3://bucket/path."""

    @field_validator("storage")
    @classmethod
    def _is_place(cls, value: str) -> str:
        return _checked(value) if "://" in value else value

    @model_validator(mode="after")
    def _agree(self) -> Config:
        every = self.evaluation.every
        if every is not None and every > self.training.steps:
            raise ValueError(
                f"evaluation.every {every} is beyond training.steps {self.training.steps}; evaluate more often"
            )
        decides = self.training.validate_every or self.evaluation.keep_best
        if self.training.patience is not None and decides is None:
            raise ValueError("training.patience needs training.validate_every or evaluation.keep_best")
        if self.training.validate_every is not None and self.data.validation is None:
            raise ValueError("training.validate_every needs a source in data.validation")
        if self.training.chunk_tokens is not None and self.training.chunks > 1:
            raise ValueError("training.chunks and training.chunk_tokens exclude each other; give one of them")
        if self.training.warmup_steps >= self.training.steps:
            raise ValueError(
                f"training.warmup_steps {self.training.warmup_steps} must be below training.steps {self.training.steps}"
            )
        every = self.training.gradient_cosine_every
        if every is not None and every > self.training.steps:
            raise ValueError(
                f"training.gradient_cosine_every {every} is above training.steps {self.training.steps}; lower it, or "
                "leave it out"
            )
        last = max(self.batching.kind_points) if self.batching.mixture is not None else 0
        if last > self.training.steps:
            raise ValueError(
                f"batching.mixture has weights at step {last}, and training.steps is {self.training.steps}; leave that "
                "point out, or train longer"
            )
        last = max(step for points in self.loss.term_points.values() for step in points)
        if last > self.training.steps:
            raise ValueError(
                f"loss.terms has a weight at step {last}, and training.steps is {self.training.steps}; leave that "
                "point out, or train longer"
            )
        return self
