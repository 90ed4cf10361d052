"""Each check of hbtrain doctor, where all is well and where it is not."""

import pytest

from hbtrain.doctor import cluster_checks, machine_checks
from hbtrain.doctor.machine_checks import folder_check, judged, on_nodes
from tests.unit.doctor_samples import CACHE, GIB, H200, HEALTHY, cluster, gpu_node, node


def shown(findings):
    """[(status, text)]; whatever is not well has a remedy, and what is well has none."""
    for finding in findings:
        assert bool(finding.remedy) == (finding.status != "ok"), finding
    return [(finding.status, finding.found) for finding in findings]


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        (node(), "ok", "none; torch 2.13.0 computes on CPUs"),
        (gpu_node(), "ok", "2 x NVIDIA H200, driver 580.65, CUDA 13.0 in torch, NCCL 2.27.7"),
        (gpu_node(ray={"GPU": 2.0}), "ok", "2 x NVIDIA H200, driver"),
        (gpu_node(ray={"GPU": 1.0}), "warning", "2 x NVIDIA H200, of which Ray hands out 1"),
        (gpu_node(ray={"CPU": 8.0}), "warning", "of which Ray hands out 0"),
        (node(ray={"GPU": 4.0}), "failure", "Ray hands out 4 GPUs, and torch sees 0"),
        (gpu_node(gpus={"seen": [], "cuda": None}), "failure", "but torch 2.13.0 is built without CUDA"),
        (
            gpu_node(gpus={"seen": [], "driver": "535.1", "reason": "The NVIDIA driver on your system is too old"}),
            "failure", "driver 535.1, but torch 2.13.0 can use none: The NVIDIA driver on your system is too old",
        ),
        (node(gpus={"reason": "NVIDIA-SMI has failed"}), "failure", "NVIDIA-SMI has failed"),
    ],
)  # fmt: skip
def test_gpus(facts, status, words):
    ((found, text),) = shown([machine_checks.gpus(facts)])
    assert found == status
    assert words in text


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        (node(), "ok", "faiss-cpu 1.15.1, searches on CPUs"),
        (gpu_node(), "ok", "faiss-gpu 1.15.1, searches on 2 GPUs"),
        (gpu_node(search={"packages": ["faiss-cpu"], "gpu_build": False}), "warning", "no code for GPUs"),
        (gpu_node(search={"gpus": 0}), "warning", "sees no GPU, and searches on CPUs"),
        (node(search={"packages": ["faiss-cpu", "faiss-gpu"]}), "failure", "are installed over each other"),
        (node(search={"right": False}), "failure", "does not find a vector that is there"),
    ],
)
def test_faiss(facts, status, words):
    ((found, text),) = shown([machine_checks.faiss(facts)])
    assert found == status
    assert words in text


@pytest.mark.parametrize(
    ("check", "changes", "status", "words"),
    [
        ("shared_memory", {}, "ok", "32 GiB"),
        ("shared_memory", {"shm": 2**26}, "warning", "64 MiB: less than Ray's 30% of 64 GiB of memory"),
        ("shared_memory", {"shm": None}, "failure", "there is none"),
        ("open_files", {}, "ok", "at most 65,536"),
        ("open_files", {"open_files": 1024, "open_files_hard": 2**20}, "ok", "at most 65,536"),  # `ray.init` raises it
        ("open_files", {"open_files": 1024, "open_files_hard": 2048}, "warning", "at most 2,048"),
        ("temporary_files", {}, "ok", "/tmp, 100 GiB free"),
        (
            "temporary_files",
            {"socket_bytes": 117},
            "warning",
            "too long for Ray's sockets below it: 117 bytes, and Linux takes 107",
        ),
        ("temporary_files", {"temporary_free": 2**30}, "warning", "/tmp has 1 GiB left"),
        ("temporary_files", {"temporary_free": None}, "failure", "/tmp cannot be written"),
    ],
)
def test_limits_of_a_machine(check, changes, status, words):
    ((found, text),) = shown([getattr(machine_checks, check)(node(machine=changes))])
    assert found == status
    assert words in text


def test_shared_memory_between_gpus_and_the_limit_of_a_joined_node():
    ((status, text),) = shown([machine_checks.shared_memory(gpu_node(machine={"shm": 2**26}))])
    assert (status, text) == ("failure", "64 MiB: too small for NCCL between this node's GPUs")
    limits = {"open_files": 1024, "open_files_hard": 2**20}
    ((status, text),) = shown([machine_checks.open_files(node(machine=limits, joined=True))])
    assert status == "warning"  # `ray start` does not raise it
    assert "at most 1,024" in text


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"shared": True, "free": 2**40}, "ok", "/shared/cache, read and written on every node, 1.02e+03 GiB free"),
        ({"shared": True}, "ok", "read and written on every node"),  # a bucket
        ({"made": [], "free": 2**40}, "ok", "can be written"),  # one machine
        ({"shared": True, "free": 2**30}, "warning", "has 1 GiB left"),
        ({"shared": False}, "failure", "is another folder there"),
        ({"error": "Read-only file system"}, "failure", "cannot be used: Read-only file system"),
    ],
)
def test_folders(facts, status, words):
    ((found, text),) = shown([folder_check(CACHE, "cache")({CACHE: facts})])
    assert found == status
    assert words in text


def test_a_probe_that_failed_is_a_failure():
    check = judged("FAISS", "search", machine_checks.faiss, "install it again")
    assert check(node()).status == "ok"
    finding = check(node() | {"search": {"error": "no answer in 60 s"}})
    assert (finding.status, finding.found, finding.remedy) == ("failure", "no answer in 60 s", "install it again")


def test_nodes_are_named_where_they_differ():
    check = machine_checks.shared_memory
    alike = {"a": node(), "b": node(), "c": node(machine={"shm": 40 * GIB})}
    (finding,) = on_nodes(check, alike)
    assert (finding.found, finding.nodes) == ("32 GiB; 40 GiB", ())
    small = node(machine={"shm": 2**26})
    bad, well = on_nodes(check, alike | {"d": small, "e": small})
    assert (well.status, well.nodes) == ("ok", ("a", "b", "c"))
    assert (bad.status, bad.nodes) == ("warning", ("d", "e"))


def software(**changes):
    return HEALTHY["software"] | changes


def test_versions_are_the_same_everywhere():
    assert [s for s, _ in shown(cluster_checks.software({"a": software(), "b": software()}))] == ["ok", "ok"]
    (python, packages) = cluster_checks.software({"a": software()})
    assert python.found == "3.11.7"
    assert packages.found.startswith("hbtrain 0.1.0 (sources 0123abcd), ray 2.60.0, torch 2.13.0, ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.12.1"}, "3.11.7 on a, b; 3.12.1 on c"),
        ({"packages": software()["packages"] | {"torch": "2.12.0"}}, "torch 2.13.0 on a, b; 2.12.0 on c"),
        (
            {"packages": {k: v for k, v in software()["packages"].items() if k != "mlflow"}},
            "3.17.2 on a, b; missing on c",
        ),
        ({"sources": "ffff0000"}, "hbtrain 0.1.0 (sources 0123abcd) on a, b; 0.1.0 (sources ffff0000) on c"),
        ({"unmet": ["numpy 1.26.0 (needs <3,>=2)"]}, "numpy 1.26.0 (needs <3,>=2)"),
        ({"error": "no answer in 60 s"}, "no answer in 60 s"),
    ],
)
def test_versions_that_differ(changes, words):
    found = cluster_checks.software({"a": software(), "b": software(), "c": software(**changes)})
    (failure,) = [finding for finding in found if finding.status == "failure"]
    assert words in failure.found


def rank(rate=None, name="a", **changes):
    return {"node": name, "gpu": True} | ({} if rate is None else {"device": H200, "tflop_s": rate}) | changes


def test_products():
    assert shown(cluster_checks.products([rank(700.0), rank(640.0)])) == [
        ("ok", "640 to 700 TFLOP/s on 2 x NVIDIA H200")
    ]
    well, slow = cluster_checks.products([rank(700.0), rank(690.0), rank(410.0, "b")])
    assert (slow.status, slow.nodes) == ("warning", ("b",))
    assert slow.found == "410 TFLOP/s, and the median of NVIDIA H200 is 690"
    assert well.found == "690 to 700 TFLOP/s on 2 x NVIDIA H200"
    waiting = rank(name="b", error="no answer in 30 s")
    assert shown(cluster_checks.products([waiting, waiting])) == [("warning", "2 GPUs not measured: others use them")]
    broken = rank(error="a matrix product in bf16 is wrong")
    assert shown(cluster_checks.products([broken])) == [("failure", "a matrix product in bf16 is wrong")]


BY_NCCL = {"ranks": 2, "backend": "nccl"}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", "0.25 GB/s by gloo between 2 processes on CPUs"),
        ({"all_gather": {"ranks": 2, "error": "b: Connection refused"}}, "failure", "failed: b: Connection refused"),
        ({"ranks": [rank(1.0)] * 2, "all_gather": BY_NCCL | {"gb_s": 350.0}}, "ok", "350 GB/s by nccl between 2 GPU"),
        ({"ranks": [rank(1.0)] * 2, "all_gather": BY_NCCL | {"gb_s": 0.1}}, "warning", "0.1 GB/s by nccl between 2 "),
        ({"ranks": [rank(1.0)] * 2, "all_gather": BY_NCCL | {"error": "a: no answer"}}, "failure", "NCCL between"),
        ({"ranks": [rank(1.0)], "all_gather": {}}, "ok", "nothing to gather"),
        ({"ranks": [rank(1.0), rank(error="x")], "all_gather": {}}, "warning", "not measured"),
    ],
)  # fmt: skip
def test_all_gather(changes, status, words):
    ((found, text),) = shown(cluster_checks.all_gather(cluster(**changes)))
    assert found == status
    assert words in text


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", "2.60.0, asks for a token"),
        ({"ray": {"version": "2.60.0", "token": False}}, "warning", "asks for no token"),
        ({"nodes": {"a": node(token=False)}}, "warning", "asks for no token"),
        ({"ray": {"error": "no port is free"}}, "failure", "does not start: no port is free"),
    ],
)
def test_ray(changes, status, words):
    seen = cluster(**changes)
    ((found, text),) = shown(cluster_checks.ray(seen, seen.nodes))
    assert found == status
    assert words in text


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"uri": None}, "ok", "no server named"),
        ({"uri": "http://mlflow:5000", "new": False}, "ok", "http://mlflow:5000 answers"),
        ({"uri": "sqlite:////runs/mlflow.db", "new": True}, "ok", "made by the first run"),
        ({"error": "Connection refused"}, "failure", "Connection refused"),
    ],
)
def test_mlflow(facts, status, words):
    ((found, text),) = shown(cluster_checks.mlflow(facts))
    assert found == status
    assert words in text


@pytest.mark.parametrize(
    ("ahead_s", "within_s", "status", "words"),
    [
        (0.002, 0.001, "ok", "at most 0.003 s apart"),
        (-7.5, 0.001, "warning", "this command is 7.5 s ahead of b"),
        (1000.0, 0.001, "failure", "b is 1000.0 s ahead of this command"),
        (3.0, 4.0, "ok", "at most 7.000 s apart"),  # as far as can be known
    ],
)
def test_clocks(ahead_s, within_s, status, words):
    nodes = {
        "a": {"clock": {"ahead_s": 0.0, "within_s": 0.001}},
        "b": {"clock": {"ahead_s": ahead_s, "within_s": within_s}},
    }
    ((found, text),) = shown(cluster_checks.clocks(nodes))
    assert found == status
    assert words in text


def test_all_findings_of_a_healthy_cluster():
    found = cluster_checks.findings(cluster())
    assert {finding.status for finding in found} == {"ok"}
    checks = ["nodes", "Python", "packages", "GPUs", "bf16 product", "all-gather", "FAISS", "/dev/shm", "open files"]
    assert [finding.check for finding in found] == [*checks, "temporary", "cache", "Ray", "MLflow", "clocks"]
    assert found[0].found == "a, b: 32 CPUs, 0 GPUs, 128 GiB of memory"


def test_a_node_that_does_not_answer_hides_nothing_of_the_others():
    nodes = cluster().nodes | {"c": {"error": "ModuleNotFoundError: No module named 'hbtrain'"}}
    found = cluster_checks.findings(cluster(nodes=nodes))
    (failure,) = [finding for finding in found if finding.status == "failure"]
    assert (failure.check, failure.nodes) == ("nodes", ("c",))
    assert "install hbtrain there" in failure.remedy
    assert len(found) == len(cluster_checks.findings(cluster())) + 1


def test_a_node_whose_processes_take_another_cache():
    assert cluster_checks.other_caches(CACHE, {"a": node(), "b": node()}) == []
    nodes = {"a": node(), "b": node(machine={"cache": "/root/.cache/hbtrain"})}
    (found,) = cluster_checks.other_caches(CACHE, nodes)
    assert (found.status, found.nodes) == ("failure", ("b",))
    assert found.found == "Ray's processes take /root/.cache/hbtrain, and this command /shared/cache"


def test_a_folder_that_this_process_cannot_write_is_told_once():
    here = cluster().here | {CACHE: {"error": "Permission denied"}}
    nodes = {name: {k: v for k, v in facts.items() if k != CACHE} for name, facts in cluster().nodes.items()}
    (failure,) = [f for f in cluster_checks.findings(cluster(here=here, nodes=nodes)) if f.status == "failure"]
    assert failure.check == "cache"
    assert "Permission denied" in failure.found
