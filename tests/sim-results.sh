#!/usr/bin/env bash
# Runs the whole simulator and prints docs/results-sim.md: the matrix without loss and with 10 %, the
# liars, and the swarm. Usage: sim-results.sh PROGRAM COMMIT [SEEDS] [LIARS] [RUNS] [LOSSY-RUNS]
set -euo pipefail
program=$1 commit=$2 seeds=${3:-0..100000} liars=${4:-1000} runs=${5:-20} lossy=${6:-200}

# Prints a command, then what it said and how it ended.
shown() {
    local code=0
    printf '\n```text\n$ portolan sim %s\n' "$*"
    "$program" sim "$@" 2>/dev/null || code=$?
    printf 'exit code %s\n```\n' "$code"
    [[ $code -eq 0 ]] || failed=1
}

failed=0
echo "# What the simulator showed"
echo
echo "Written by \`tests/sim-results.sh\` at commit $commit on $(date -u +%Y-%m-%d), $(nproc) cores, $(rustc --version | cut -d' ' -f1-2)."
echo
echo "## The NAT matrix"
echo
echo "Equal links, a round trip of 40 ms to every server, nothing lost."
shown --matrix --runs "$runs"
echo
echo "## The NAT matrix with 10 % of all packets lost"
shown --matrix --runs "$lossy" --loss 10
echo
echo "## Unreliable servers"
shown --liars "$liars"
echo
echo "## The swarm"
shown --seeds "$seeds"
exit "$failed"
