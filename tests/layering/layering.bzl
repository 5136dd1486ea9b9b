"""layering_test: what a room must never reach, asked of the dependency graph."""

def layering_test(name, targets, forbidden, violated = False):
    """Passes if no label in the closure of `targets` matches `forbidden`.

    Args:
      name: the test.
      targets: labels; genquery allows no patterns, so ./dev lint checks that none is left out.
      forbidden: regular expression of labels.
      violated: True for a planted violation that has to be found.
    """
    labels = ["//%s%s" % (native.package_name(), t) if t.startswith(":") else t for t in targets]
    native.genquery(
        name = name + "_found",
        expression = 'filter("%s", deps(set(%s)))' % (forbidden, " ".join(labels)),
        opts = ["--output=label"],
        scope = labels,
        testonly = True,
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["empty_test.sh"],
        args = ["$(location %s_found)" % name, "violated" if violated else "kept"],
        data = [name + "_found"],
    )
