"""Bazel's events and pytest's XML -> the failures by name and one last line.

A test target of Bazel counts once, an end-to-end test once. A target that does
not build is a failure, and so is a run that ended without telling why.
"""

import argparse
import json
import os
import sys
import xml.etree.ElementTree as ElementTree

# Bazel's exit codes: all passed; some test failed; no test was selected.
_EXPLAINED_CODES = {0, 3, 4}


def bazel_results(path):
    """label -> "passed", "failed" or "skipped"."""
    results = {}
    if not os.path.exists(path):
        return results
    with open(path, encoding="utf-8") as events:
        for line in events:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of an interrupted run
            key = event.get("id", {})
            completed = key.get("targetCompleted") or key.get("targetConfigured")
            if "testSummary" in event:
                label = key["testSummary"]["label"]
                status = event["testSummary"].get("overallStatus")
                results[label] = "passed" if status in ("PASSED", "FLAKY") else "failed"
            elif completed and "aborted" in event:
                skipped = event["aborted"].get("reason") == "SKIPPED"
                results.setdefault(completed["label"], "skipped" if skipped else "failed")
            elif completed and "completed" in event and not event["completed"].get("success"):
                results.setdefault(completed["label"], "failed")
            elif "unstructuredCommandLine" in key or "pattern" in key:
                if event.get("aborted", {}).get("reason") == "LOADING_FAILURE":
                    results.setdefault(str(key["pattern"]), "failed")
    return results


def pytest_results(path):
    results = {}
    if not os.path.exists(path):
        return results
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            results[name] = "failed"
        else:
            results[name] = "skipped" if "skipped" in kinds else "passed"
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bazel", required=True)
    parser.add_argument("--bazel-code", type=int, required=True)
    parser.add_argument("--sanitized", nargs=3, action="append", default=[], metavar=("CONFIG", "EVENTS", "CODE"))
    parser.add_argument("--pytest", required=True)
    parser.add_argument("--pytest-code", type=int, required=True)
    options = parser.parse_args()

    results = bazel_results(options.bazel)
    if options.bazel_code and (options.bazel_code not in _EXPLAINED_CODES or not results):
        if "failed" not in results.values():
            results[f"bazel (exit code {options.bazel_code})"] = "failed"
    for config, events, code in options.sanitized:
        sanitized = bazel_results(events)
        if int(code) and "failed" not in sanitized.values():
            results[f"bazel --config={config} (exit code {code})"] = "failed"
        results.update({f"{label} --config={config}": result for label, result in sanitized.items()})
    end_to_end = pytest_results(options.pytest)
    if options.pytest_code and "failed" not in end_to_end.values():
        results[f"tests/e2e (exit code {options.pytest_code})"] = "failed"
    results.update(end_to_end)

    for name, result in sorted(results.items()):
        if result == "failed":
            print("FAILED", name)
    counts = {kind: list(results.values()).count(kind) for kind in ("passed", "failed", "skipped")}
    line = f"{counts['passed']} passed, {counts['failed']} failed"
    if counts["skipped"]:
        line += f", {counts['skipped']} skipped"
    print(line, flush=True)
    sys.exit(1 if counts["failed"] or not counts["passed"] else 0)


main()
