"""mlir_fuzz_test: a libFuzzer target over MLIR, without the address sanitizer."""

_ARCHIVES = ["MLIRParser", "MLIRAsmParser", "MLIRBytecodeReader", "MLIRIR", "MLIRSupport", "LLVMSupport", "LLVMDemangle"]

def mlir_fuzz_test(name, srcs, hdrs, seeds):
    """Compiles `srcs` with clang for coverage and undefined behaviour and fuzzes for $HEDDLE_FUZZ_SECONDS, 20 unless set.

    LLVM's allocators poison memory in code that has the address sanitizer and do not unpoison it in Debian's archives, which have none: so neither has this.

    Args:
      name: the test.
      srcs: every .cc file of the target.
      hdrs: the headers they include, generated ones too.
      seeds: .mlir files.
    """
    native.genrule(
        name = name + "_binary",
        srcs = srcs + hdrs,
        outs = [name + ".bin"],
        cmd = "/usr/bin/clang++-19 -std=c++17 -O1 -g1 -fsanitize=fuzzer,undefined -fno-sanitize=vptr,function -fno-sanitize-recover=undefined -I. -I$(GENDIR) -I/usr/lib/llvm-19/include " +
              " ".join(["$(locations %s)" % src for src in srcs]) +
              " -o $@ -fuse-ld=/usr/bin/ld.lld-19 -L/usr/lib/llvm-19/lib -Wl,--start-group " +
              " ".join(["-l:lib%s.a" % archive for archive in _ARCHIVES]) +
              " -Wl,--end-group -l:libz.a -l:libzstd.a -l:libtinfo.a -lpthread -ldl -lm",
    )
    native.sh_test(
        name = name,
        srcs = ["mlir_fuzz_test.sh"],
        args = ["$(location %s_binary)" % name] + ["$(locations %s)" % seed for seed in seeds],
        data = [name + "_binary"] + seeds,
        size = "large",
        tags = ["fuzz"],
    )
