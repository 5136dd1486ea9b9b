"""The ODS ops are torch's schemas, argument for argument."""

import runpy


def test_ops_equal_torch_schemas():
    runpy.run_path("ir/graph/aten_ops.py")["main"](["--check", "ir/graph/GraphAtenOps.td"])


def test_a_changed_argument_is_found(tmp_path):
    ops = runpy.run_path("ir/graph/aten_ops.py")
    changed = tmp_path / "changed.td"
    changed.write_text(ops["document"]().replace("IntArg:$dim0", "IntArg:$first", 1))
    try:
        ops["main"](["--check", str(changed)])
    except SystemExit as error:
        assert "transpose.int" in str(error)
    else:
        raise AssertionError("the change was not found")
