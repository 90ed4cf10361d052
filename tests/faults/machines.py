"""Ray nodes that are lost."""

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, line_with, survived


def node_killed(folder):
    """A node with one of two workers is lost; another one joins."""
    from tests.integration.nodes import QUICK, Node

    with Node.head(folder) as head, head.join(folder, "second") as second:
        arguments = [*NO_SCORES, "--resources.address", head.address]
        with HurtRun(folder, *arguments, **QUICK) as run:
            run.wait_for("checkpoint of step 100 kept", 250)
            second.kill()
            with head.join(folder, "third"):
                seen = Seen.of(run, 300)
    checks = survived(seen) | {"went on from a checkpoint": bool(seen.resumed) and seen.resumed[-1] >= 100}
    done = "two Ray nodes of 1 CPU; kill -9 of all of the second after step 100; a third one joins"
    return Row("node killed", done, seen, line_with("goes on from the checkpoint", seen.output), checks)
