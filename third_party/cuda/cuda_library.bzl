"""cuda_library: .cu files through nvcc into an ordinary cc_library."""

load(":config.bzl", _HAVE_CUDA = "HAVE_CUDA", _NVCC = "NVCC")

HAVE_CUDA = _HAVE_CUDA

_FLAGS = [
    "-ccbin /usr/bin/g++",
    "-std=c++17 -O3",
    "-Xcompiler -fPIC,-fvisibility=hidden",
    "-gencode arch=compute_90a,code=sm_90a",
    "--expt-relaxed-constexpr",
]

def cuda_library(name, srcs, hdrs = [], deps = [], nvcc_flags = [], **kwargs):
    """Objects of `srcs`, with `deps` for linking; empty where there is no CUDA toolkit.

    Args:
      name: the library.
      srcs: .cu files. Keep torch and MLIR headers out of them.
      hdrs: every header of the project that the .cu files include, from any package.
      deps: what the host code of the objects links.
      nvcc_flags: more flags.
      **kwargs: passed to cc_library.
    """
    objects = []
    if HAVE_CUDA:
        for src in srcs:
            object_name = name + "/" + src.rpartition(":")[2].replace(".cu", ".pic.o")
            native.genrule(
                name = name + "_" + src.rpartition(":")[2].replace(".cu", "_object").replace("/", "_"),
                srcs = [src] + hdrs,
                outs = [object_name],
                cmd = " ".join([_NVCC] + _FLAGS + nvcc_flags + ["-I. -I$(GENDIR) -c $(location %s) -o $@" % src]),
                visibility = ["//visibility:private"],
            )
            objects.append(object_name)
    native.cc_library(
        name = name,
        srcs = objects,
        hdrs = [h for h in hdrs if not h.startswith("//") and not h.startswith("@")],
        deps = deps + ["@cuda//:cudart"],
        alwayslink = True,
        **kwargs
    )
