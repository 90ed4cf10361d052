"""Ray nodes, hosts and clusters that are lost."""

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, Skipped, line_with, no_traceback, survived


def node_killed(folder):
    """A node with one of two workers is lost; another one joins."""
    from tests.integration.nodes import QUICK, Node

    with Node.head(folder) as head, head.join(folder, "second") as second:
        arguments = [*NO_SCORES, "--resources.address", head.address]
        with HurtRun(folder, *arguments, **QUICK) as run:
            run.wait_for("checkpoint of step 100 kept")
            second.kill()
            with head.join(folder, "third"):
                seen = Seen.of(run)
    checks = survived(seen) | {"went on from a checkpoint": bool(seen.resumed) and seen.resumed[-1] >= 100}
    done = "two Ray nodes of 1 CPU; kill -9 of all of the second after step 100; a third one joins"
    return Row("node killed", done, seen, line_with("goes on from the checkpoint", seen.output), checks)


def host_loses_power(folder):
    """A host with one of two workers is cut off and ends; another host joins."""
    from tests.integration.hosts import Hosts, NoHosts
    from tests.integration.nodes import QUICK, Node

    try:
        hosts = Hosts(folder)
    except NoHosts as reason:
        raise Skipped(str(reason)) from None
    with hosts:
        first, second, third = hosts.add(), hosts.add(), hosts.add()
        with Node.head_on(first, folder) as head, head.join(folder, "second", host=second):
            address = {"RAY_ADDRESS": f"{first.address}:6379"}
            with HurtRun(folder, *NO_SCORES, host=first, **address, **QUICK) as run:
                run.wait_for("checkpoint of step 100 kept")
                second.lose_power()
                with head.join(folder, "third", host=third):
                    seen = Seen.of(run)
    checks = survived(seen) | {"went on from a checkpoint": bool(seen.resumed) and seen.resumed[-1] >= 100}
    done = (
        "two hosts (network namespaces) with 1 CPU each; after step 100 the second's link goes down and all on it is "
        "killed; a third host joins"
    )
    return Row("host cut off", done, seen, line_with("goes on from the checkpoint", seen.output), checks)


def head_killed(folder):
    """The head of the cluster is killed, and with it the cluster; the same command on another one."""
    from tests.integration.nodes import Node

    for name in ("1", "2"):
        (folder / name).mkdir()
    limit = {"RAY_gcs_rpc_server_reconnect_timeout_s": "12"}
    one_worker = [*NO_SCORES, "--resources.workers", "1"]
    with Node.head(folder / "1") as head, HurtRun(folder, *one_worker, RAY_ADDRESS=head.address, **limit) as run:
        run.wait_for("checkpoint of step 100 kept")
        head.kill()
        lost = Seen.of(run)
    with Node.head(folder / "2") as head, HurtRun(folder, *one_worker, RAY_ADDRESS=head.address) as run:
        seen = Seen.of(run)
    said = line_with("was lost", lost.output)
    checks = survived(seen) | {
        "went on from a checkpoint": bool(seen.resumed) and seen.resumed[-1] >= 100,
        "exit code 1 when lost": lost.exit_code == 1,
        "one line when lost": said == lost.last_lines[-1] and no_traceback(lost)["no traceback"],
    }
    done = "one Ray node of 1 CPU; kill -9 of all of it after step 100; the same command on another cluster"
    return Row("cluster gone", done, seen, said, checks)
