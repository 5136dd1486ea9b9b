"""flatbuffer_cc_library: a schema as a C++ header."""

def flatbuffer_cc_library(
        name,
        srcs,
        flatc_args = ["--cpp", "--cpp-std c++17", "--scoped-enums", "--gen-object-api", "--reflect-names"],
        visibility = None):
    """`x.fbs` becomes `x_generated.h` in the same package, in a cc_library `name`."""
    outs = []
    for src in srcs:
        out = src.replace(".fbs", "_generated.h")
        native.genrule(
            name = name + "_" + out.replace(".", "_"),
            srcs = [src],
            outs = [out],
            cmd = "/usr/bin/flatc %s -o $(@D) $(location %s)" % (" ".join(flatc_args), src),
            visibility = visibility,
        )
        outs.append(out)
    native.cc_library(
        name = name,
        hdrs = outs,
        deps = ["@flatbuffers"],
        visibility = visibility,
    )
