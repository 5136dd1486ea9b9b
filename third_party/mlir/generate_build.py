"""CMake's export files of LLVM and MLIR -> a BUILD file on stdout.

One cc_library per static archive, with the edges that CMake recorded. Debian
built MLIR against the shared libLLVM, so MLIR's own edges to LLVM are lost:
`LLVM` here is every target-independent archive plus the X86 and NVPTX back
ends. Linking is lazy, so a binary gets only the members that it refers to.
"""

import os
import re
import sys

_KEPT_BACK_ENDS = ("X86", "NVPTX")
_DROPPED_BACK_ENDS = (
    "AArch64 AMDGPU ARC ARM AVR BPF CSKY DirectX Hexagon Lanai LoongArch M68k MSP430 Mips "
    "PowerPC RISCV SPIRV Sparc SystemZ VE WebAssembly XCore Xtensa"
).split()
# They need libraries (libcurl, libxml2, ...) that nothing here uses.
_DROPPED = {"LLVMDebuginfod", "LLVMWindowsManifest", "LLVMInterfaceStub"}
_SYSTEM_LIBRARIES = ["-l:libz.a", "-l:libzstd.a", "-l:libtinfo.a", "-lpthread", "-ldl", "-lm"]


def read_edges(path):
    text = open(path).read()
    edges = {name: [] for name in re.findall(r"add_library\((\w+) STATIC IMPORTED\)", text)}
    pattern = r'set_target_properties\((\w+) PROPERTIES\s+INTERFACE_LINK_LIBRARIES "([^"]*)"'
    for name, libraries in re.findall(pattern, text):
        if name in edges:
            libraries = libraries.replace("\\$<LINK_ONLY:", "").replace(">", "")
            edges[name] = libraries.split(";")
    return edges


def drop_cycles(edges):
    """Removes the edges that close a cycle: Bazel has none, and LLD needs none."""
    state = {}

    def visit(name):
        state[name] = "open"
        kept = []
        for dependency in edges[name]:
            if state.get(dependency) == "open":
                continue
            if dependency not in state:
                visit(dependency)
            kept.append(dependency)
        edges[name] = kept
        state[name] = "done"

    for name in sorted(edges):
        if name not in state:
            visit(name)


def is_dropped(name):
    if name in _DROPPED:
        return True
    stem = name[len("LLVM"):]
    return name.startswith("LLVM") and stem.startswith(tuple(_DROPPED_BACK_ENDS))


def emit_library(name, archive, deps):
    print(f'cc_library(name = "{name}", srcs = ["{archive}"], deps = {deps!r})')


def main():
    prefix = sys.argv[1]
    llvm = read_edges(prefix + "/lib/cmake/llvm/LLVMExports.cmake")
    mlir = read_edges(prefix + "/lib/cmake/mlir/MLIRTargets.cmake")
    edges = {}
    for name, libraries in {**llvm, **mlir}.items():
        if not is_dropped(name) and os.path.exists(f"{prefix}/lib/lib{name}.a"):
            edges[name] = libraries
    llvm_names = sorted(name for name in edges if name in llvm)
    for name, libraries in edges.items():
        edges[name] = sorted({library for library in libraries if library in edges})
    drop_cycles(edges)

    print('package(default_visibility = ["//visibility:public"])')
    print('exports_files(["include"])')
    print(f"""cc_library(
    name = "headers",
    textual_hdrs = ["include"],
    includes = ["include"],
    linkopts = {_SYSTEM_LIBRARIES!r},
)""")
    for name in llvm_names:
        emit_library(name, f"lib/lib{name}.a", [":headers"] + [":" + d for d in edges[name]])
    print(f'cc_library(name = "LLVM", deps = {[":" + name for name in llvm_names]!r})')
    for name in sorted(set(edges) - set(llvm_names)):
        emit_library(name, f"lib/lib{name}.a", [":LLVM"] + [":" + d for d in edges[name]])


main()
