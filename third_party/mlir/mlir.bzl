"""Debian's LLVM and MLIR 19: static libraries (@mlir) and tools (@llvm)."""

_PREFIX = "/usr/lib/llvm-19"

def _mlir_impl(ctx):
    ctx.symlink(_PREFIX + "/include", "include")
    ctx.symlink(_PREFIX + "/lib", "lib")
    result = ctx.execute(["/usr/bin/python3", ctx.path(Label("//third_party/mlir:generate_build.py")), _PREFIX])
    if result.return_code != 0:
        fail("cannot describe the MLIR in %s: %s" % (_PREFIX, result.stderr))
    ctx.file("BUILD", result.stdout, executable = False)

mlir_repository = repository_rule(
    implementation = _mlir_impl,
    doc = "One cc_library per static library of LLVM and MLIR, named as CMake names it.",
    local = True,
)

_TOOLS = ["FileCheck", "not", "split-file", "mlir-tblgen", "llvm-tblgen", "mlir-opt", "mlir-reduce"]

def _llvm_tools_impl(ctx):
    for tool in _TOOLS:
        path = ctx.path(_PREFIX + "/bin/" + tool)
        if not path.exists:
            fail("%s is missing: run ./dev setup (Debian packages llvm-19-tools and mlir-19-tools)" % path)
        ctx.symlink(path, tool)
    ctx.symlink(_PREFIX + "/build/utils/lit", "lit")
    ctx.file("BUILD", """package(default_visibility = ["//visibility:public"])
exports_files({tools})
filegroup(name = "lit_files", srcs = ["lit"])
""".format(tools = repr(_TOOLS)), executable = False)

llvm_tools_repository = repository_rule(
    implementation = _llvm_tools_impl,
    local = True,
)
