"""INV-6: nothing of Heddle's touches CUDA before a step for CUDA first runs: a process that imports it and compiles can still fork children that use it.

A stand-in for the driver, libcuda.so.1, writes down every call and says that there is no device. Recording a step is another matter: it runs PyTorch's autograd, which asks the
driver for its devices at its first backward, whatever they are (the last test), and refuses to run in a child that was forked after that.
"""

import os
import subprocess
import sys

import pytest
import torch
from small import Net, rows

import heddle

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

for zero in range(4):
    compile_program(heddle.load_program({folder!r} + "/cuda.mlir"), {{"mode": "train", "zero": zero, "mesh": "dp:2", "optimizer": {{"kind": "adamw"}}}})
child = os.fork()
if child == 0:
    step = heddle.compile(heddle.load_program({folder!r} + "/cpu.mlir"), rows(0, 2, torch.float32), **arguments(zero=2, dp=2, precision="fp32"))
    step.load_state_dict(Net().state_dict())
    out = step(rows(1, 4, torch.float32))
    os._exit(0 if out.loss == out.loss and not out.skipped else 3)
assert os.waitpid(child, 0)[1] == 0
print("forked")
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True)
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
    for device in ("cpu", "cuda"):
        heddle.capture(Net(), rows(0, 2, torch.float32), device=device, precision="fp32").save(driver / f"{device}.mlir")
    printed, called = calls(driver, PROGRAM.format(here=os.path.dirname(__file__), folder=str(driver)))
    assert printed == "forked\n" and called == []


def test_inv_6_the_stand_in_sees_a_call(driver):
    """PyTorch's own first backward, on the CPU."""
    _, called = calls(driver, "import torch; torch.ones(1, requires_grad=True).sum().backward()")
    assert "cuInit" in called
