"""A hidden DSO exports what its version script names, and nothing of MLIR."""

import ctypes
import os
import subprocess


def library():
    return os.path.join(os.environ["HEDDLE_LIB_DIR"], "libhidden.so")


def test_exports_are_those_of_the_version_script():
    out = subprocess.check_output(["nm", "-D", "--defined-only", library()], text=True)
    assert {line.split()[-1] for line in out.splitlines()} == {"heddle_smoke_parse"}


def test_works_beside_a_global_libmlir_and_numba():
    ctypes.CDLL("/usr/lib/llvm-19/lib/libMLIR.so.19.1", mode=ctypes.RTLD_GLOBAL)
    import llvmlite.binding  # noqa: F401  (an LLVM of its own)
    import triton  # noqa: F401

    parse = ctypes.CDLL(library()).heddle_smoke_parse
    assert parse(b"module {}") == 1
    assert parse(b"module {") == 0
