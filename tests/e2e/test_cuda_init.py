"""INV-6: nothing touches CUDA before a step for CUDA first runs, so a process that imports, captures and compiles can still fork children that use it.

A stand-in for the driver, libcuda.so.1, writes down every call and says that there is no device. Bites: torch.cuda.is_available() in place of the program calls it, as the last
test shows; so does a `cudaGetDeviceCount` in a static initialiser of any of the libraries (tried in the runtime's).
"""

import os
import shutil
import subprocess
import sys

import pytest

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int called(const char* name) {
  FILE* file = fopen(getenv("DRIVER_CALLS"), "a");
  fprintf(file, "%s\n", name);
  fclose(file);
  return 100; /* CUDA_ERROR_NO_DEVICE */
}
int cuInit(unsigned flags) { return called("cuInit"); }
int cuDriverGetVersion(int* version) { called("cuDriverGetVersion"); *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = 0; return called("cuDeviceGetCount"); }
int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags, void* status) {
  called(name);
  *function = strcmp(name, "cuInit") == 0 ? (void*)cuInit : strcmp(name, "cuDriverGetVersion") == 0 ? (void*)cuDriverGetVersion : strcmp(name, "cuGetProcAddress") == 0 ? (void*)cuGetProcAddress_v2 : (void*)cuDeviceGetCount;
  return 0;
}
"""

PROGRAM = """
import os, sys
sys.path.insert(0, {here!r})
import torch
import heddle
from heddle.compiler import compile_program
from small import Net, arguments, rows

example = rows(0, 2, torch.float32)
program = heddle.capture(Net(), example, device="cuda", precision="fp32")
for zero in range(4):
    compile_program(program, {{"mode": "train", "zero": zero, "mesh": "dp:2", "optimizer": {{"kind": "adamw"}}}})
child = os.fork()
if child == 0:
    # What training needs, in a child: threads of its own, a device, a checkpoint of every tensor.
    step = heddle.compile(Net(), example, **arguments(zero=2, dp=2, precision="fp32"))
    out = step(rows(1, 4, torch.float32))
    os._exit(0 if out.loss == out.loss and not out.skipped else 3)
assert os.waitpid(child, 0)[1] == 0
print("forked")
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the driver's stand-in with")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True)
    return folder


def calls(driver, program):
    """(what it printed, the driver's functions that it called or asked for)."""
    log = driver / "calls"
    log.write_text("")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "DRIVER_CALLS": str(log), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, log.read_text().split()


def test_inv_6_compiling_makes_no_cuda_call_and_a_forked_child_trains(driver):
    printed, called = calls(driver, PROGRAM.format(here=os.path.dirname(__file__)))
    assert printed == "forked\n" and called == []


def test_inv_6_the_stand_in_sees_a_call(driver):
    _, called = calls(driver, "import torch; torch.cuda.is_available()")
    assert "cuInit" in called
