"""The shipped libraries export Heddle's C interface and nothing else, and their MLIR meets no other LLVM."""

import os
import subprocess
import sys

import pytest

LIBRARIES = ["libheddle_capture.so", "libheddle_runtime.so", "libheddle_compiler.so"]


def path_of(name):
    return os.path.join(os.environ["HEDDLE_LIB_DIR"], name)


@pytest.mark.parametrize("name", LIBRARIES)
def test_exports_only_heddle_names(name):
    out = subprocess.check_output(["nm", "-D", "--defined-only", path_of(name)], text=True)
    exported = [line.split()[-1] for line in out.splitlines()]
    assert [symbol for symbol in exported if not symbol.startswith("heddle_")] == []


@pytest.mark.parametrize("libmlir_first", [True, False])
def test_compiler_works_beside_other_llvms(libmlir_first):
    script = f"""
import ctypes

class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def load_others():
    ctypes.CDLL("/usr/lib/llvm-19/lib/libMLIR.so.19.1", mode=ctypes.RTLD_GLOBAL)
    import numba, triton
    assert numba.njit(lambda x: x + 1)(1) == 2
    from triton._C import libtriton

if {libmlir_first}:
    load_others()
compiler = ctypes.CDLL({path_of("libheddle_compiler.so")!r})

def run(text):
    out, error = Buffer(), Buffer()
    code = compiler.heddle_run_passes(
        text, ctypes.c_size_t(len(text)), b"builtin.module(canonicalize)", ctypes.byref(out), ctypes.byref(error))
    return code, ctypes.string_at(out.data, out.size) if out.data else b""

assert run(b"module {{}}")[0] == 0
if not {libmlir_first}:
    load_others()
code, text = run(b"module {{}}")
assert code == 0 and b"builtin.module" in text
assert run(b"module {{")[0] == 1
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
