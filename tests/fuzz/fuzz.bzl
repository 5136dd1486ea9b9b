"""heddle_fuzz_test: a libFuzzer target with address and undefined-behaviour sanitizers."""

def heddle_fuzz_test(name, srcs, hdrs):
    """Compiles `srcs` with clang (g++ has no libFuzzer) and fuzzes for $HEDDLE_FUZZ_SECONDS, 20 unless set.

    Args:
      name: the test.
      srcs: every .cc file of the target; nothing is taken from libraries that were compiled without the sanitizers but Abseil.
      hdrs: the headers they include.
    """
    native.genrule(
        name = name + "_binary",
        srcs = srcs + hdrs,
        outs = [name + ".bin"],
        cmd = "/usr/bin/clang++-19 -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. -I$(GENDIR) " +
              " ".join(["$(locations %s)" % src for src in srcs]) +
              " -o $@ -labsl_status -labsl_statusor -labsl_cord -labsl_strings -labsl_strings_internal -labsl_raw_logging_internal -labsl_throw_delegate -labsl_bad_variant_access",
    )
    native.sh_test(
        name = name,
        srcs = ["fuzz_test.sh"],
        args = [
            "$(location %s_binary)" % name,
            "$(location //tests/fixtures:write_plans)",
        ],
        data = [
            name + "_binary",
            "//tests/fixtures:write_plans",
        ],
        size = "large",
        tags = ["fuzz"],
    )
