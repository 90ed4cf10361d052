"""What importing DeepSpeed brings along, in a process that has imported nothing before."""

import subprocess
import sys

PROGRAM = """
import sys
{before}
from hbtrain.training.engine import import_deepspeed
deepspeed = import_deepspeed()
from deepspeed.autotuning import autotuner
print(deepspeed.__version__, autotuner.has_mlflow, "mlflow" in sys.modules)
import mlflow
print(mlflow.__name__, mlflow is sys.modules["mlflow"])
"""


def told(before=""):
    program = PROGRAM.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-2:]


def test_deepspeed_leaves_mlflow_to_whoever_wants_it():
    imported, later = told()
    assert imported.endswith(" False False")
    assert later == "mlflow True"


def test_an_mlflow_that_is_there_already_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "mlflow.py").write_text("")  # another one than the real one, whose import takes seconds
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert told("import mlflow")[0].endswith(" True True")
