"""heddle_py_test: pytest on one file with .venv's Python."""

def heddle_py_test(name, src, libs = [], data = [], size = "medium", tags = [], **kwargs):
    """Runs pytest on `src`.

    Args:
      name: the test.
      src: a file of pytest tests.
      libs: shared objects and tools, found in $HEDDLE_LIB_DIR.
      data: other files, e.g. "//api/python/heddle:sources" (api/python is on PYTHONPATH).
      size: as for every test.
      tags: as for every test.
      **kwargs: passed to sh_test.
    """
    native.sh_test(
        name = name,
        srcs = ["//third_party:python_test.sh"],
        args = ["$(location %s)" % src] + ["$(locations %s)" % lib for lib in libs],
        data = [src, "@venv//:python.sh"] + libs + data,
        size = size,
        tags = tags + ["python"],
        **kwargs
    )
