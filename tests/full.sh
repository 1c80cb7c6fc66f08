#!/usr/bin/env bash
# The long runs: the gate, the demo on a release build, and the benchmark. Results go to
# docs/results/, named by date and commit, so that a number can be traced to what produced it.
set -euo pipefail
cd "$(dirname "$0")/.."

commit=$(git rev-parse --short=12 HEAD)
if [[ -n $(git status --porcelain) ]]; then
    commit="$commit-dirty"
fi
results=docs/results
name="$results/$(date -u +%Y-%m-%d)-$commit"
mkdir -p "$results"

.ci/run

cargo build --release --locked
cargo build --release --locked -p portolan-tests --bin bench-verdict
# The same folder that cargo builds into, wherever the environment has put it.
target=$(cargo metadata --format-version 1 --no-deps --locked |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

"$target/release/portolan" demo --json >"$name-demo.json"
"$target/release/bench-verdict" >"$name-bench-verdict.json"

{
    echo "commit: $commit"
    echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    echo "kernel: $(uname -s) $(uname -r | cut -d- -f1)"
    echo "cpus: $(nproc)"
    rustc --version
} >"$name-machine.txt"
echo "results: $name-*"
