"""hidden_dso: a shared object that exports what its version script names."""

load("@absl//:archives.bzl", "ABSL")

# Debian's static Abseil is not position-independent (local-exec TLS in Cord), so
# a shared object takes the shared one. Named before the archives, it leaves them
# nothing to define; what is not used is not recorded.
_SHARED_ABSEIL = ["-Wl,--push-state,--as-needed"] + [
    "-l" + archive[len("lib"):-len(".a")]
    for archive in ABSL
] + ["-Wl,--pop-state"]

def hidden_dso(name, deps, version_script, linkopts = [], visibility = ["//visibility:public"], **kwargs):
    """Builds lib<name>.so from `deps`, with everything else in it local.

    Exported functions come from a cc_library with `alwayslink = True` and are
    declared with default visibility.

    Args:
      name: label of the DSO; the file is lib<name>.so.
      deps: static libraries.
      version_script: `{ global: heddle_*; local: *; };`
      linkopts: more linker flags.
      visibility: public unless told.
      **kwargs: passed to cc_binary.
    """
    file = "lib%s.so" % name
    native.cc_binary(
        name = file,
        deps = deps + [version_script],
        linkopts = [
            "-Wl,--version-script=$(location %s)" % version_script,
            "-Wl,-soname," + file,
            "-Wl,-Bsymbolic",
            "-Wl,-z,defs",
            "-Wl,--gc-sections",
        ] + _SHARED_ABSEIL + select({
            "//third_party:wheel": ["-Wl,--disable-new-dtags,-rpath,$$ORIGIN"],
            "//conditions:default": [],
        }) + linkopts,
        linkshared = True,
        visibility = visibility,
        **kwargs
    )
    native.filegroup(
        name = name,
        srcs = [file],
        visibility = visibility,
    )
