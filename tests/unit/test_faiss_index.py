"""FAISS: what it refuses late is refused early, and that one build of it is installed."""

import sys
import tomllib
from importlib import metadata
from itertools import combinations
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hbtrain.errors import ConfigError
from hbtrain.retrieval import faiss_index
from hbtrain.retrieval.faiss_index import check_factory, load_faiss

DIMENSION = 32


@pytest.mark.parametrize(
    ("factory", "parameters", "words"),
    [
        ("IDMap2,HNSW16", "", ("IDMap2,HNSW16", "add_with_ids")),
        ("IDMap,IVF8,Flat", "nprobe=2", ("IDMap,IVF8,Flat", "cannot be filled")),
        ("NSG16", "", ("NSG16", "incremental")),
        ("IVF4096,SQ8", "nprobe=0", ("nprobe=0", "cannot be searched")),
        ("IVF64,PQ8x4", "nprobe=-3", ("nprobe=-3", "whole number")),
        ("IVF64,Flat", "nprobe=2.5", ("nprobe=2.5", "whole number")),
        ("IVF64,Flat", "nprobe=1e3", ("nprobe=1e3", "NAME=NUMBER")),
        ("IVF64,Flat", "nprobe=99999999999", ("nprobe=99999999999", "NAME=NUMBER")),
        ("HNSW16", "efSearch", ("'efSearch'", "NAME=NUMBER")),
        ("HNSW16", "efSearch=nan", ("efSearch=nan", "NAME=NUMBER")),
        ("SQ8,RFlat", "k_factor_rf=0.2", ("k_factor_rf=0.2", "cannot be searched")),
        ("PQ7", "", ("PQ7", "32 dimensions")),
        ("IVF100,PQ8", "", ("256 vectors", "has 200")),
    ],
)
def test_what_faiss_refuses_late_is_refused_before_anything_is_encoded(factory, parameters, words):
    with pytest.raises(ConfigError) as error:
        check_factory(factory, parameters, DIMENSION, 200 if factory == "IVF100,PQ8" else sys.maxsize, files=2)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("factory", "parameters"),
    [
        ("IVF65536_HNSW32,PQ16", "nprobe=64,quantizer_efSearch=128"),
        ("OPQ8_16,IVF1024,PQ8x4fs", "nprobe=9"),
        ("PCA16,IVF256,SQ8", ""),
        ("SQ8,RFlat", "k_factor_rf=1.5"),
        ("IVF32,RQ4x8", ""),
        ("NSG16", ""),
    ],
)
def test_indices_that_work_are_let_pass(factory, parameters):
    check_factory(factory, parameters, DIMENSION, sys.maxsize)


@pytest.fixture
def fresh_import():
    load_faiss.cache_clear()
    yield
    load_faiss.cache_clear()


@pytest.mark.usefixtures("fresh_import")
def test_two_builds_of_faiss_in_one_environment_are_refused(monkeypatch):
    both = {"faiss": ["faiss-gpu", "faiss-cpu", "faiss-cpu"]}
    monkeypatch.setattr(faiss_index.metadata, "packages_distributions", lambda: both)
    with pytest.raises(ConfigError, match=r"faiss-cpu and faiss-gpu, .*pip uninstall faiss-cpu faiss-gpu, then pip"):
        check_factory("IVF4,Flat", "", DIMENSION, sys.maxsize)


@pytest.mark.usefixtures("fresh_import")
@pytest.mark.parametrize("module", [None, type(sys)("faiss")])
def test_faiss_that_is_missing_or_a_leftover_is_refused_with_what_to_install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "faiss", module)
    with pytest.raises(ConfigError, match=r"needs FAISS, .*hbtrain\[cpu\].*hbtrain\[gpu\]"):
        check_factory("IVF4,Flat", "", DIMENSION, sys.maxsize)
    check_factory("Flat", "", DIMENSION, sys.maxsize)


PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def builds_of(extras):
    """Names of the packages with FAISS that pip installs for hbtrain with these extras."""
    wanted = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return sorted({name for text in wanted if (name := Requirement(text).name).startswith("faiss")})


def test_no_choice_of_extras_but_both_builds_by_name_brings_two_builds_of_faiss():
    assert builds_of([]) == []
    assert (builds_of(["cpu"]), builds_of(["gpu"])) == (["faiss-cpu"], ["faiss-gpu"])
    others = [extra for extra in EXTRAS if extra not in ("cpu", "gpu")]
    for build in ("cpu", "gpu"):
        for number in range(len(others) + 1):
            for extras in combinations(others, number):
                assert builds_of([build, *extras]) == [f"faiss-{build}"]


def test_no_file_of_this_environment_belongs_to_faiss_and_to_another_package():
    """By the lists of files in the wheels; faiss-cpu and faiss-gpu have 29 files in common."""
    owners: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            if file.parts[0] == "faiss":
                owners.setdefault(str(file), set()).add(distribution.name)
    assert "faiss/swigfaiss.py" in owners
    assert {path: names for path, names in owners.items() if len(names) > 1} == {}
