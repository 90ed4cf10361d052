"""Bad input: one line, exit code 2, and nothing started. In this process, so that the test is quick."""

import json
import subprocess
import sys
import time

import pytest


@pytest.fixture
def hbtrain(hbtrain, monkeypatch):
    """The command line, where nothing may start a worker."""
    monkeypatch.setattr("hbtrain.runs.run.connected", lambda *_: pytest.fail("a worker would have been started"))
    return hbtrain


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quikstart"], ["unknown recipe 'quikstart'", "did you mean quickstart"]),
        (["quickstart", "--batching.alfa", "0.5"], ["unknown key 'batching.alfa'", "did you mean batching.alpha"]),
        (["quickstart", "--batching.alpha", "1.5"], ["batching.alpha = 1.5", "less than or equal to 1"]),
        (["quickstart", "--data.sources", "nowhere.jsonl"], ["cannot read source nowhere.jsonl"]),
        (["quickstart", "--data.sources", "empty.jsonl"], ["empty.jsonl is empty"]),
        (["quickstart", "--data.sources", "broken.jsonl"], ["broken.jsonl line 2 is not JSON"]),
        (["quickstart", "--data.languages", "de", "sw"], ["no source has 'sw'", "ar, de, en"]),
        (["quickstart", "--data.languages", "de"], ["two languages or more"]),
        (["quickstart", "--batching.global_batch_size", "5000"], ["cannot fill a batch", "5,000"]),
        (["quickstart", "--resources.workers", "900"], ["resources.workers = 900"]),
        (
            ["quickstart", "--batching.global_batch_size", "1", "--resources.workers", "2"],
            ["batching.global_batch_size = 1", "resources.workers = 2"],
        ),
        (["quickstart", "--encoder.backbone", "./no-model"], ["no-model"]),
        (["quickstart", "--encoder.backbone", "nobody/no-such-model"], ["nobody/no-such-model"]),
        (["quickstart", "--encoder.static.vocabulary", "no-vocabulary.txt"], ["no-vocabulary.txt"]),
        (["quickstart", "--training.deepspeed", "no.json"], ["training.deepspeed", "no.json"]),
        (["quickstart", "--training.deepspeed", "broken.json"], ["training.deepspeed", "is not JSON"]),
        (
            ["quickstart", "--training.deepspeed.gradient_accumulation_steps", "4"],
            ["gradient_accumulation_steps = 4", "gives 1"],
        ),
        (["quickstart", "--training.deepspeed.zero_optimization.stage", "7"], ["zero_optimization.stage = 7"]),
        (
            ["quickstart", "--training.deepspeed.optimizer.type", "Adam"],
            ["'optimizer'", "training.optimizer, learning_rate"],
        ),
        (["quickstart", "--evaluation.benchmarks", "xquad-q=here"], ["xquad-q"]),
        (["quickstart", "--evaluation.benchmarks", "xquad-r=missing-folder"], ["missing-folder"]),
        (["quickstart", "--evaluation.in_domain", "xquad-r"], ["in-domain benchmark 'xquad-r'", "demo"]),
        (["quickstart", "--evaluation.candidates", "paragraph"], ["evaluation.candidates"]),
        (["quickstart", "--evaluation.every", "9", "--evaluation.during", "xquad-r"], ["'xquad-r'", "there are demo"]),
        (["quickstart", "--evaluation.keep_best", "demo/multi/map"], ["keep_best needs evaluation.every"]),
        (
            ["quickstart", "--evaluation.every", "9", "--evaluation.keep_best", "demo/multi/maps"],
            ["evaluation.keep_best = 'demo/multi/maps'", "did you mean demo/multi/map?"],
        ),
        (["quickstart", "--evaluation.every", "401"], ["evaluation.every 401 is beyond training.steps 400"]),
        (["quickstart", "--data.validation", "english.jsonl", "--data.languages", "de", "ru"], ["data.validation"]),
        (["quickstart", "--storage", "/proc/hbtrain"], ["storage", "/proc/hbtrain"]),
        (["quickstart", "--storage", "broken.jsonl"], ["storage", "cannot be written"]),
        (["quickstart", "--tracking.uri", "nonsense://x"], ["tracking.uri"]),
        (["quickstart", "stray"], ["unexpected argument 'stray'"]),
    ],
)
def test_train_refuses(hbtrain, tmp_path, arguments, words):
    good = {"id": "1", "query": {"en": "q"}, "passage": {"en": "p"}}
    write(tmp_path / "empty.jsonl", "")
    write(tmp_path / "broken.jsonl", json.dumps(good) + "\n{\n")
    write(tmp_path / "english.jsonl", json.dumps(good) + "\n")
    write(tmp_path / "broken.json", "{")
    code, _, err = hbtrain("train", *arguments)
    assert code == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "no-model", "--benchmark", "demo", "--output", "out"], ["no-model"]),
        (["evaluate", ".", "--benchmark", "demo", "--output", "out"], ["modules.json"]),
        (["evaluate", "model", "--benchmark", "dmeo", "--output", "out"], ["dmeo"]),
        (["evaluate", "model", "--benchmark", "xquad-r", "--output", "out"], ["xquad-r"]),
        (["evaluate", "model", "--benchmark", "demo", "--output", "out", "--languages", "sw"], ["sw"]),
        (["search", "no-model", "why?"], ["no-model"]),
        (["search", "model", "why?", "--top", "0"], ["--top 0"]),
        (["search", "model", "why?", "--data", "nowhere.jsonl"], ["nowhere.jsonl"]),
    ],
)
def test_evaluate_and_search_refuse(hbtrain, tmp_path, arguments, words):
    (tmp_path / "model").mkdir()
    write(tmp_path / "model" / "modules.json", "[]")
    code, _, err = hbtrain(*arguments)
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err


def test_unknown_commands_and_flags_end_with_2(hbtrain):
    assert hbtrain("trian")[0] == 2
    assert hbtrain("evaluate", "m", "--bench", "x")[0] == 2


def test_lists(hbtrain):
    _, out, _ = hbtrain("recipes")
    assert "quickstart" in out
    assert "static-parallel" in out
    _, out, _ = hbtrain("keys")
    assert "batching.alpha = 0.5" in out.splitlines()


def test_help_answers_at_once():
    """Without the heavy libraries; the time itself is not asserted, a machine may be busy."""
    started = time.perf_counter()
    code = "import sys, hbtrain.cli.main as c; sys.argv = ['hbtrain', '--help']\n"
    code += "try: c.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'ray', 'mlflow', 'transformers', 'scipy', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "evaluate" in done.stdout
    print(f"--help took {time.perf_counter() - started:.2f} s")


def test_verify_ends_with_1_where_the_gradient_is_wrong(hbtrain, monkeypatch):
    from hbtrain.training.verify import Agreement

    for cosine, want in ((1.0, 0), (0.39, 1)):
        monkeypatch.setattr("hbtrain.runs.verify.verify", lambda *_, c=cosine: Agreement(1.0, c, 0.1, 1e-5))
        code, out, _ = hbtrain("verify", "quickstart", "--step", "3", "--training.chunks", "2")
        assert code == want
        assert ("wrong" in out) == bool(want)


def test_verify_of_a_step_that_the_run_does_not_have(hbtrain):
    code, _, err = hbtrain("verify", "quickstart", "--step", "999999")
    assert code == 2
    assert "--step 999999: the run has the steps 0 to" in err
