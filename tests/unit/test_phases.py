import torch

from hbtrain.training.stopwatch import OTHER, Stopwatch


def test_phases_are_marked_as_they_begin_and_what_is_around_them_as_they_end():
    marks = []
    stopwatch = Stopwatch(torch.device("cpu"), lambda phase, step=None: marks.append(phase))
    with stopwatch.phase("encode"), stopwatch.phase("communication"):
        pass
    assert list(stopwatch.each([1, 2], "data")) == [1, 2]
    assert marks == ["encode", "communication", "encode", OTHER] + ["data", OTHER] * 3


def test_phases_within_a_whole_one_are_marked_though_their_time_is_not_theirs():
    marks = []
    stopwatch = Stopwatch(torch.device("cpu"), lambda phase, step=None: marks.append(phase))
    with stopwatch.phase("validation", whole=True), stopwatch.phase("loss"):
        pass
    assert marks == ["validation", "loss", OTHER]
    assert "loss" not in stopwatch.read()
