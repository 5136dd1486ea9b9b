"""The virtual environment: where its packages lie and how to start it."""

def venv_path(ctx):
    """Path of .venv beside WORKSPACE, with its site-packages."""
    workspace = ctx.path(Label("//:WORKSPACE")).dirname
    venv = workspace.get_child(".venv")
    packages = venv.get_child("lib").get_child("python3.11").get_child("site-packages")
    if not packages.exists:
        fail("%s does not exist: run ./dev setup" % packages)
    return venv, packages

def _venv_impl(ctx):
    venv, packages = venv_path(ctx)
    ctx.file("python.sh", "#!/bin/sh\nexec %s/bin/python \"$@\"\n" % venv)
    ctx.file("BUILD", """exports_files(["python.sh"], visibility = ["//visibility:public"])
""", executable = False)

venv_repository = repository_rule(
    implementation = _venv_impl,
    doc = "@venv//:python.sh runs .venv's Python.",
    local = True,
)
