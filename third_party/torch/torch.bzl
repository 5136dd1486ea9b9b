"""LibTorch of the wheel in .venv.

Linked by flags, not as files: the wheel's libraries find each other through
$ORIGIN, which a symlink would break.
"""

load("//third_party/python:venv.bzl", "venv_path")

_BUILD = """package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    textual_hdrs = ["include"],
    includes = ["include", "include/torch/csrc/api/include"],
)

cc_library(
    name = "torch_cpu",
    linkopts = ["-L{lib}"] + select({{
        "@heddle//third_party:wheel": ["-Wl,--disable-new-dtags"] + [
            "-Wl,-rpath,$$ORIGIN/../../" + directory
            for directory in ["torch/lib", "nvidia/cu13/lib", "nvidia/nccl/lib"]
        ],
        "//conditions:default": ["-Wl,-rpath,{lib}"],
    }}) + ["-Wl,--push-state,--no-as-needed", "-ltorch_cpu", "-lc10", "-Wl,--pop-state"],
    deps = [":headers"],
)

cc_library(
    name = "torch_cuda",
    linkopts = ["-Wl,--push-state,--no-as-needed", "-ltorch_cuda", "-lc10_cuda", "-Wl,--pop-state"],
    deps = [":torch_cpu", "@cuda//:headers"],
)
"""

def _torch_impl(ctx):
    _, packages = venv_path(ctx)
    torch = packages.get_child("torch")
    if not torch.exists:
        fail("%s does not exist: run ./dev setup" % torch)
    ctx.symlink(torch.get_child("include"), "include")
    ctx.file("BUILD", _BUILD.format(lib = torch.get_child("lib")), executable = False)

torch_repository = repository_rule(
    implementation = _torch_impl,
    local = True,
)
