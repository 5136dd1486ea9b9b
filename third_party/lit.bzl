"""lit_suite: every .mlir file its own test."""

def lit_suite(name, srcs, tools = [], data = [], size = "small", tags = []):
    """One test target per file of `srcs`, and a test_suite `name` over them.

    Args:
      name: the test_suite.
      srcs: .mlir files with RUN lines. `glob(["*.mlir"])` is fine.
      tools: binaries under test; on PATH by their own names beside FileCheck and not.
      data: other files that a test reads, found beside it.
      size: of each test.
      tags: of each test.
    """
    tests = []
    for src in srcs:
        test = src + ".test"
        native.sh_test(
            name = test,
            srcs = ["//third_party:lit_test.sh"],
            args = ["$(location %s)" % src] + ["$(locations %s)" % tool for tool in tools],
            data = [
                src,
                "//tests:lit.cfg.py",
                "@llvm//:FileCheck",
                "@llvm//:lit_files",
                "@llvm//:not",
                "@llvm//:split-file",
                "@venv//:python.sh",
            ] + tools + data,
            size = size,
            tags = tags + ["lit"],
        )
        tests.append(test)
    native.test_suite(name = name, tests = tests)
