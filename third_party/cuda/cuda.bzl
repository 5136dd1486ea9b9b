"""The CUDA toolkit ($CUDA_HOME or /usr/local/cuda) and the NCCL wheel.

Without a toolkit the same labels exist and are empty, HAVE_CUDA is False, and
the build is for the CPU only.
"""

load("//third_party/python:venv.bzl", "venv_path")

def _cuda_impl(ctx):
    home = ctx.path(ctx.os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    found = home.get_child("bin").get_child("nvcc").exists
    if found:
        ctx.symlink(home.get_child("include"), "include")
        lib = home.get_child("lib64")
        ctx.template("BUILD", Label("//third_party/cuda:cuda.BUILD"), {"%{lib}": str(lib)}, executable = False)
    else:
        ctx.symlink(Label("//third_party/cuda:no_cuda.BUILD"), "BUILD")
    ctx.file("config.bzl", "HAVE_CUDA = %s\nNVCC = \"%s/bin/nvcc\"\n" % (found, home), executable = False)
    ctx.symlink(Label("//third_party/cuda:cuda_library.bzl"), "defs.bzl")

cuda_repository = repository_rule(
    implementation = _cuda_impl,
    environ = ["CUDA_HOME"],
    local = True,
)

_NCCL_BUILD = """package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    textual_hdrs = ["include"],
    includes = ["include"],
    deps = ["@cuda//:headers"],
)

cc_library(
    name = "nccl",
    linkopts = ["-L{lib}"] + select({{
        "@heddle//third_party:wheel": [],
        "//conditions:default": ["-Wl,-rpath,{lib}"],
    }}) + ["-l:libnccl.so.2"],
    deps = [":headers"],
)
"""

def _nccl_impl(ctx):
    _, packages = venv_path(ctx)
    nccl = packages.get_child("nvidia").get_child("nccl")
    if not nccl.exists:
        fail("%s does not exist: run ./dev setup" % nccl)
    ctx.symlink(nccl.get_child("include"), "include")
    ctx.file("BUILD", _NCCL_BUILD.format(lib = nccl.get_child("lib")), executable = False)

nccl_repository = repository_rule(
    implementation = _nccl_impl,
    local = True,
)
