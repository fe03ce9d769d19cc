"""What is said about NumPy's BLAS."""

from __future__ import annotations

import sys

import pytest

from backprop_gpu.backends.cpu.blas import Blas, blas, built_blas, core_hint, cpu_flags, loaded_blas, usable_cores

AVX512 = {"avx2", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def openblas(path, core, threads=2):
    return {
        "user_api": "blas",
        "internal_api": "openblas",
        "filepath": path,
        "version": "0.3.31",
        "architecture": core,
        "num_threads": threads,
    }


def test_numpys_own_library_is_taken_among_several():
    openmp = {"user_api": "openmp", "internal_api": "openmp", "filepath": "/x/numpy.libs/libgomp.so", "num_threads": 9}
    scipys = openblas("/x/scipy.libs/libscipy_openblas.so", "Zen", 8)
    numpys = openblas("/x/numpy.libs/libscipy_openblas64_.so", "Haswell", 4)
    assert loaded_blas([openmp, scipys, numpys]) == Blas("openblas", "0.3.31", "Haswell", 4)


def test_a_library_shared_by_all_is_taken():
    mkl = {"user_api": "blas", "internal_api": "mkl", "filepath": "/env/lib/libmkl_rt.so", "version": "2025.1"}
    assert loaded_blas([mkl]) == Blas("mkl", "2025.1", None, None)


def test_no_loaded_blas():
    assert loaded_blas([]) is None


def test_loaded_library_agrees_with_threadpoolctl():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        found = blas()
    assert found.threads == 1
    assert found.name in {pool["internal_api"] for pool in threadpoolctl.threadpool_info()}


def test_without_threadpoolctl_numpys_build_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert blas() == built_blas()
    assert blas().name  # every NumPy wheel is built against some BLAS
    assert (blas().core, blas().threads) == (None, None)


def test_hint_when_the_processor_can_do_more(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    hint = core_hint(Blas("openblas", core="Haswell"), AVX512)
    assert "set OPENBLAS_CORETYPE=SkylakeX before Python starts" in hint
    assert "\n" not in hint


def test_hint_names_the_variable_that_holds_it_back(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    hint = core_hint(Blas("openblas", core="Haswell"), AVX512)
    assert hint.startswith("OPENBLAS_CORETYPE=Haswell keeps")
    assert hint.endswith("unset it")


@pytest.mark.parametrize("missing", sorted(AVX512 - {"avx2"}))
def test_no_core_type_is_suggested_that_the_processor_lacks(monkeypatch, missing):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert core_hint(Blas("openblas", core="Haswell"), AVX512 - {missing}) == ""


@pytest.mark.parametrize(
    "found",
    [
        Blas("openblas", core="SkylakeX"),
        Blas("openblas", core="neoversen1"),
        Blas("openblas", core=None),
        Blas("mkl"),
        Blas(None),
    ],
)
def test_no_hint_where_there_is_nothing_to_gain(monkeypatch, found):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert core_hint(found, AVX512) == ""


def test_cpu_flags_are_read(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: some CPU\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nflags\t: x\n"
    )
    assert cpu_flags(str(cpuinfo)) == {"fpu", "avx2", "avx512f"}


def test_no_cpu_flags_without_the_file(tmp_path):
    assert cpu_flags(str(tmp_path / "absent")) == frozenset()


def test_usable_cores():
    assert usable_cores() >= 1
