"""The C++ toolchain: Bazel's detected one, linking with LLD 19.

Bazel prefers gold and searches linkers beside the compiler, where Debian has
LLD 14. The generated toolchain is edited instead of wrapped in a directory of
ours, so that command lines, hence disk cache keys, name no checkout.
"""

load("@bazel_tools//tools/cpp:unix_cc_configure.bzl", "configure_unix_toolchain")

_LLD_DIRECTORY = "/usr/lib/llvm-19/bin"

def _replace_once(text, old, new):
    if text.count(old) == 0:
        fail("the detected C++ toolchain has no '%s' to replace: is this Bazel 4.2.3 with gold?" % old)
    return text.replace(old, new)

def _heddle_cc_impl(ctx):
    if not ctx.path(_LLD_DIRECTORY + "/ld.lld").exists:
        fail("LLD 19 is missing: run ./dev setup (Debian package lld-19)")
    configure_unix_toolchain(ctx, "k8", {"gcc": "/usr/bin/gcc"})
    text = ctx.read("BUILD")
    text = _replace_once(text, "-fuse-ld=gold", "-fuse-ld=lld")
    text = _replace_once(text, "-B/usr/bin", "-B" + _LLD_DIRECTORY)
    ctx.file("BUILD", text, executable = False)

heddle_cc = repository_rule(
    implementation = _heddle_cc_impl,
    configure = True,
    local = True,
)
