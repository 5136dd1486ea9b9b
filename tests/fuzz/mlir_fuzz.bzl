"""mlir_fuzz_test: a libFuzzer target over MLIR."""

_ARCHIVES = ["MLIRParser", "MLIRAsmParser", "MLIRBytecodeReader", "MLIRIR", "MLIRSupport", "LLVMSupport", "LLVMDemangle"]

_CLANG = "/usr/bin/clang++-19 -std=c++17 -I. -I$(GENDIR) -I/usr/lib/llvm-19/include "

def mlir_fuzz_test(name, srcs, generated, hdrs, seeds, sanitizers, tags = []):
    """Compiles `srcs` with clang and fuzzes for $HEDDLE_FUZZ_SECONDS, 20 unless set.

    Debian's archives of MLIR have no sanitizer: mlir_fuzz.cc says what of the address sanitizer they cannot keep to. What they write into freed memory it does not see; glibc's heap does.

    Args:
      name: the test.
      srcs: every .cc file of the target that somebody wrote.
      generated: the one that tblgen wrote, not optimised and not looked at for undefined behaviour: it would take three minutes to compile.
      hdrs: the headers they include, generated ones too.
      seeds: .mlir files.
      sanitizers: beside libFuzzer's own, as clang names them.
      tags: as for every test.
    """
    native.genrule(
        name = name + "_generated",
        srcs = [generated] + hdrs,
        outs = [name + ".generated.o"],
        tags = tags,
        cmd = _CLANG + "-O0 -fsanitize=%s -c $(location %s) -o $@" % (",".join(["fuzzer-no-link"] + [each for each in sanitizers if each != "undefined"]), generated),
    )
    native.genrule(
        name = name + "_binary",
        srcs = srcs + hdrs + [name + ".generated.o"],
        outs = [name + ".bin"],
        tags = tags,
        cmd = _CLANG + "-O1 -g1 -fsanitize=%s -fno-sanitize=vptr,function -fno-sanitize-recover=undefined " % ",".join(["fuzzer"] + sanitizers) +
              " ".join(["$(locations %s)" % src for src in srcs]) + " $(location %s.generated.o)" % name +
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
        tags = tags + ["fuzz"],
    )
