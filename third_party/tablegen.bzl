"""gentbl: TableGen output as includable headers."""

# MLIR's own .td files are read where Debian has them. They are no inputs: they
# change only together with the tool, which is one.

def gentbl(name, td_file, tbl_outs, td_srcs = [], tool = "@llvm//:mlir-tblgen", visibility = None):
    """Runs TableGen once per output and collects the outputs in a cc_library `name`.

    Args:
      name: a cc_library whose textual headers are the outputs, included by workspace path.
      td_file: the .td file to run on.
      tbl_outs: list of (flags, output file), e.g. ("-gen-op-decls", "GraphOps.h.inc").
      td_srcs: .td files that td_file includes, from any package of the workspace.
      tool: mlir-tblgen or llvm-tblgen.
      visibility: of the library and the outputs.
    """
    for flags, out in tbl_outs:
        native.genrule(
            name = name + "_" + out.replace(".", "_").replace("/", "_"),
            srcs = [td_file] + td_srcs,
            outs = [out],
            tools = [tool],
            cmd = "$(location %s) %s -I /usr/lib/llvm-19/include -I. -I$(GENDIR) $(location %s) -o $@" % (
                tool,
                flags,
                td_file,
            ),
            visibility = visibility,
        )
    native.cc_library(
        name = name,
        textual_hdrs = [out for _, out in tbl_outs],
        visibility = visibility,
    )
