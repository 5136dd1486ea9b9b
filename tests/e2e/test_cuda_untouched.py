"""Heddle calls nothing of CUDA before a plan is loaded: a stand-in for the driver notes every cuInit. Skipped where there is a real one: tests/gpu/test_first_cuda_call.py is for there.

PyTorch itself asks the driver for its devices with the first backward of a process, on whatever device, and capture has one; so the program comes from another process here.
"""

import os
import subprocess
import sys

import pytest
import torch

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) {
  FILE* log = fopen(getenv("CUINIT_LOG"), "a");
  fputs("cuInit\n", log);
  fclose(log);
  return 100;  /* CUDA_ERROR_NO_DEVICE */
}
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
static int missing(void) { return 100; }
int cuGetProcAddress_v2(const char* name, void** found, int version, unsigned long long flags, int* status) {
  *found = (void*)missing;
  if (!strcmp(name, "cuInit")) *found = (void*)cuInit;
  if (!strcmp(name, "cuDriverGetVersion")) *found = (void*)cuDriverGetVersion;
  if (!strcmp(name, "cuGetProcAddress")) *found = (void*)cuGetProcAddress_v2;
  if (status) *status = 0;
  return 0;
}
int cuGetProcAddress(const char* name, void** found, int version, unsigned long long flags) { return cuGetProcAddress_v2(name, found, version, flags, 0); }
"""
NET = """
import heddle, heddle.compiler, sys, torch
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
arguments = dict(loss=lambda out, _: out.square().mean(), device="cuda", precision="fp32")
"""
CAPTURE = NET + """
heddle.capture(net, (torch.randn(2, 4),), **arguments).save(sys.argv[1])
"""
COMPILE = NET + """
heddle.capture(net.eval(), (torch.randn(2, 4),), **arguments, backward=False)
program = heddle.load_program(sys.argv[1])
heddle.compiler.compile_program(program, {"mode": "train", "optimizer": heddle.AdamW(lr=1e-2).compiler_options(dict(net.named_parameters())), "config": {"lr": 1e-2}})
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_capturing_and_compiling_for_a_gpu_do_not_wake_it(tmp_path):
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"], check=True)

    def calls(program):
        log = tmp_path / "log"
        log.write_text("")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "CUINIT_LOG": str(log)}
        run = subprocess.run([sys.executable, "-c", program, tmp_path / "step.mlir"], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return log.read_text().count("cuInit")

    # That the stand-in sees a call at all.
    assert calls("import torch; torch.cuda.is_available()") > 0
    calls(CAPTURE)
    assert calls(COMPILE) == 0
