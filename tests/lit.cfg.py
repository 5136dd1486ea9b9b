"""lit: RUN lines of one .mlir file, with the tools that its target names on PATH."""

import os

import lit.formats

config.name = "heddle"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.test_exec_root = os.path.join(os.environ["TEST_TMPDIR"], "out")
config.environment["PATH"] = os.environ["PATH"]
config.environment["TEST_TMPDIR"] = os.environ["TEST_TMPDIR"]
# A variable that is not meant for the whole file cannot leak into the next case.
config.environment["FILECHECK_OPTS"] = "--enable-var-scope --dump-input-filter=annotation-full"
