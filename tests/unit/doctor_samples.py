"""What a healthy machine says of itself, with the parts changed that a test is about."""

from hbtrain.doctor.survey import Survey

GIB = 2**30
CACHE, STORAGE = "/shared/cache", "s3://bucket/runs"
VERSIONS = {"hbtrain": "0.1.0", "ray": "2.60.0", "torch": "2.13.0", "deepspeed": "0.19.8", "transformers": "5.24.0"}
VERSIONS |= {
    "sentence-transformers": "6.2.0",
    "datasets": "5.2.0",
    "mlflow": "3.17.2",
    "numpy": "2.4.6",
    "pyarrow": "25",
}
HEALTHY = {
    "software": {"python": "3.11.7", "packages": VERSIONS, "sources": "0123abcd", "unmet": []},
    "machine": {
        "cpus": 16, "memory": 64 * GIB, "shm": 32 * GIB, "open_files": 65536, "open_files_hard": 65536,
        "temporary": "/tmp", "temporary_free": 100 * GIB, "socket_bytes": 72, "cache": CACHE,
    },
    "gpus": {"listed": [], "seen": [], "driver": None, "torch": "2.13.0", "cuda": None, "reason": ""},
    "search": {"version": "1.15.1", "packages": ["faiss-cpu"], "gpu_build": False, "gpus": 0, "right": True},
    CACHE: {"shared": True, "free": 500 * GIB},
}  # fmt: skip
H200 = "NVIDIA H200"
WITH_GPUS = {
    "gpus": {"listed": [H200] * 2, "seen": [H200] * 2, "driver": "580.65", "cuda": "13.0", "nccl": "2.27.7"},
    "search": {"packages": ["faiss-gpu"], "gpu_build": True, "gpus": 2},
}


def node(**changes):
    """A healthy node, with `changes` {probe: facts that differ}."""
    facts = {probe: own | changes.pop(probe, {}) for probe, own in HEALTHY.items()}
    return facts | changes


def gpu_node(**changes):
    """A healthy node with two GPUs, with `changes` as in `node`."""
    return node(**{probe: own | changes.pop(probe, {}) for probe, own in WITH_GPUS.items()}, **changes)


def cluster(**changes):
    """A survey of two healthy nodes without GPUs, with other attributes."""
    named = {
        "nodes": {
            name: node(clock={"ahead_s": 0.001, "within_s": 0.002}, token=True, joined=True) for name in ("a", "b")
        },
        "here": {"software": HEALTHY["software"], "tracking": {"uri": None}, CACHE: {"made": [], "free": GIB}},
        "ray": {"version": "2.60.0", "token": True},
        "ranks": [{"node": name, "gpu": False, "device": "1 thread of a CPU", "tflop_s": 0.5} for name in ("a", "b")],
        "all_gather": {"ranks": 2, "backend": "gloo", "gb_s": 0.25},
    }
    return Survey("10.0.0.1:6379", {CACHE: "cache"}, **named | changes)
