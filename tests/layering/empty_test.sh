#!/bin/bash
# empty_test.sh FILE kept|violated: FILE, the forbidden dependencies found, is
# empty where the rule is kept and is not where a violation was planted.
set -euo pipefail
if [[ $2 == kept && -s $1 ]]; then
  echo "forbidden dependencies:"
  cat "$1"
  exit 1
fi
if [[ $2 == violated && ! -s $1 ]]; then
  echo "the planted violation was not found"
  exit 1
fi
