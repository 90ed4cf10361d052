"""The manifests for Kubernetes against its own schema, KubeRay's fields, and each other."""

import copy
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "cluster" / "kubernetes"
KUBERAY = yaml.safe_load(Path(__file__).with_name("kuberay_schema.yaml").read_text())
VERSION = "1.34"
"""Of Kubernetes."""


def manifests():
    """Every document of every manifest."""
    return [part for path in sorted(FOLDER.glob("*.yaml")) for part in yaml.safe_load_all(path.read_text())]


def of_kind(*kinds):
    return [part for part in manifests() if part["kind"] in kinds]


def cluster_specs():
    """The Ray clusters that the manifests describe."""
    (cluster,), (job,) = of_kind("RayCluster"), of_kind("RayJob")
    return cluster["spec"], job["spec"]["rayClusterSpec"]


def ray_groups(spec):
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pod_templates():
    """{place: template} of all pods."""
    found = {part["metadata"]["name"]: part["spec"]["template"] for part in of_kind("Deployment", "StatefulSet")}
    for i, group in enumerate(ray_groups(cluster_specs()[0])):
        found[f"ray group {i}"] = group["template"]
    (job,) = of_kind("RayJob")
    return found | {"submitter": job["spec"]["submitterPodTemplate"]}


def test_all_that_is_expected_is_there():
    kinds = {part["kind"] for part in manifests()}
    assert kinds == {
        "RayCluster", "RayJob", "PersistentVolumeClaim", "Service", "Deployment", "StatefulSet", "NetworkPolicy"
    }  # fmt: skip


@pytest.mark.parametrize("part", of_kind("RayCluster", "RayJob"), ids=lambda part: part["kind"])
def test_ray_resources_hold_what_kuberay_knows(part):
    jsonschema.validate(part, KUBERAY)
    wrong = copy.deepcopy(part)
    wrong["spec"]["worker"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, KUBERAY)


def test_other_resources_are_kubernetes_own():
    others = [part for part in manifests() if part["apiVersion"] != "ray.io/v1"]
    assert others
    for part in others:
        kubernetes_validate.validate(part, VERSION, strict=True)


@pytest.mark.parametrize("place", pod_templates())
def test_pods_of_ray_are_pods(place):
    template = copy.deepcopy(pod_templates()[place])
    part = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
    kubernetes_validate.validate(part, VERSION, strict=True)
    template["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(part, VERSION, strict=True)


def test_the_job_has_the_cluster_of_the_other_file():
    cluster, of_job = cluster_specs()
    assert cluster == of_job


def test_ray_asks_for_a_token_and_scales():
    spec = cluster_specs()[0]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_start_knows_the_parameters():
    from ray.scripts.scripts import start

    known = {flag.removeprefix("--") for parameter in start.params for flag in parameter.opts}
    for group in ray_groups(cluster_specs()[0]):
        assert group["rayStartParams"].keys() <= known


def test_the_job_waits_for_workers_that_the_cluster_can_grow_to():
    (job,) = of_kind("RayJob")
    entrypoint = job["spec"]["entrypoint"]
    least, most = re.search(r"--resources.workers (\d+) (\d+)", entrypoint).groups()
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = [group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for group in groups]
    there = sum(gpu * group["minReplicas"] for gpu, group in zip(gpus, groups, strict=True))
    assert int(least) <= there or int(re.search(r"--resources.wait_s (\d+)", entrypoint)[1]) >= 600
    assert int(most) == sum(gpu * group["maxReplicas"] for gpu, group in zip(gpus, groups, strict=True))


@pytest.mark.parametrize("place", pod_templates())
def test_mounts_and_claims_exist(place):
    claims = {part["metadata"]["name"] for part in of_kind("PersistentVolumeClaim")}
    owned = {
        claim["metadata"]["name"]
        for part in of_kind("StatefulSet")
        if part["metadata"]["name"] == place
        for claim in part["spec"]["volumeClaimTemplates"]
    }
    spec = pod_templates()[place]["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            assert mount["name"] in volumes.keys() | owned
    for volume in volumes.values():
        assert "emptyDir" in volume or volume["persistentVolumeClaim"]["claimName"] in claims


def test_services_reach_pods_at_their_ports():
    templates = {part["metadata"]["name"]: part["spec"]["template"] for part in of_kind("Deployment", "StatefulSet")}
    services = of_kind("Service")
    assert {service["metadata"]["name"] for service in services} == templates.keys()
    for service in services:
        template = templates[service["metadata"]["name"]]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        opened = {port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert {port["port"] for port in service["spec"]["ports"]} <= opened


def test_addresses_are_those_of_services():
    known = {
        (part["metadata"]["name"], str(port["port"])) for part in of_kind("Service") for port in part["spec"]["ports"]
    }
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    named = re.findall(r'value: "(?:http|postgresql\+psycopg2)://(?:[^@"]*@)?([\w.-]+):(\d+)', text)
    assert set(named) == known


@pytest.mark.parametrize("place", pod_templates())
def test_pods_have_no_more_rights_than_they_need(place):
    """What Kubernetes' standard "restricted" for pods asks for."""
    spec = pod_templates()[place]["spec"]
    of_pod = spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        # Ray writes below its home, where its image has Python as well.
        assert context.get("readOnlyRootFilesystem") is (
            None if container["image"].endswith(("-cpu", "-cuda")) else True
        )
    # The autoscaler, on the head, asks Kubernetes for pods; nobody else asks it for anything.
    assert spec.get("automountServiceAccountToken") is (None if place == "ray group 0" else False)


def test_the_autoscaler_has_no_more_rights_than_the_others():
    head = pod_templates()["ray group 0"]["spec"]["containers"][0]
    assert cluster_specs()[0]["autoscalerOptions"]["securityContext"] == head["securityContext"]


def test_only_those_that_need_it_may_connect():
    """Labels by which KubeRay's own pods are found are KubeRay's: `ray.io/is-ray-node`, and that of its operator."""
    templates = pod_templates()
    labels = {name: template.get("metadata", {}).get("labels", {}) for name, template in templates.items()}
    labels |= {"ray group 0": {"ray.io/is-ray-node": "yes"}, "operator": {"app.kubernetes.io/name": "kuberay-operator"}}
    labels["metrics"] = {"kubernetes.io/metadata.name": "monitoring"}

    def place_of(selector):
        wanted = selector["matchLabels"].items()
        (place,) = (name for name, own in labels.items() if wanted <= own.items())
        return place

    allowed = set()
    for policy in of_kind("NetworkPolicy"):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        for rule in spec["ingress"]:
            ports = [port["port"] for port in rule.get("ports", [{"port": "any"}])]
            for peer in rule["from"]:
                source = place_of(peer.get("podSelector") or peer["namespaceSelector"])
                allowed |= {(source, place_of(spec["podSelector"]), port) for port in ports}
    ray = "ray group 0"
    assert allowed == {
        (ray, ray, "any"), ("submitter", ray, 8265), ("operator", ray, 8265), ("metrics", ray, 8080),
        (ray, "mlflow", 5000), ("mlflow", "postgres", 5432), ("mlflow", "s3", 8333),
    }  # fmt: skip


@pytest.mark.parametrize("place", pod_templates())
def test_passwords_come_from_a_secret(place):
    for container in pod_templates()[place]["spec"]["containers"]:
        for variable in container.get("env", []):
            if re.search("PASSWORD|KEY|TOKEN|SECRET", variable["name"]):
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "hbtrain-tracking"
                assert "value" not in variable


def test_a_head_that_is_to_go_asks_what_trains_in_it_and_waits(tmp_path):
    (container,) = cluster_specs()[0]["headGroupSpec"]["template"]["spec"]["containers"]
    program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "python"
    said = tmp_path / "said"
    body = "trap 'echo asked >>$0; exit' TERM; echo up >>$0; for _ in {1..600}; do sleep 0.05; done"
    mine = ["bash", "-c", body, str(said)]
    started = [subprocess.Popen([*mine, *more]) for more in (["hbtrain", "train", "quickstart"], ["hbtrain", "search"])]
    try:
        while not said.exists() or said.read_text().count("up") < 2:
            time.sleep(0.02)
        # Of all processes of this machine, it shall see those of this test only.
        ours = f"import psutil; psutil.process_iter = lambda _: map(psutil.Process, {[p.pid for p in started]})"
        with_names = "; psutil.Process.info = property(lambda p: {'cmdline': p.cmdline()})\n"
        asking = subprocess.Popen([sys.executable, arguments[0], ours + with_names + arguments[1]])
        started.append(asking)
        assert started[0].wait(60) == 0
        assert asking.wait(60) == 0
        assert started[1].poll() is None
        assert said.read_text().split() == ["up", "up", "asked"]
    finally:
        for process in started:
            process.kill()
            process.wait()
