#!/usr/bin/env bash
# Runs the whole simulator and prints docs/results-sim.md: the matrix without loss and with 10 %, the
# liars, and the swarm, all at once.
# Usage: sim-results.sh PROGRAM COMMIT [SEEDS] [LIARS] [RUNS] [LOSSY-RUNS]
set -euo pipefail
program=$1 commit=$2 seeds=${3:-0..100000} liars=${4:-1000} runs=${5:-20} lossy=${6:-200}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT

# Runs a command into a part, with what it said and how it ended.
part() {
    local into=$1 code=0
    shift
    {
        printf '```text\n$ portolan sim %s\n' "$*"
        "$program" sim "$@" 2>/dev/null || code=$?
        printf 'exit code %s\n```\n' "$code"
    } >"$parts/$into"
}

part matrix --matrix --runs "$runs" &
part lossy --matrix --runs "$lossy" --loss 10 &
part liars --liars "$liars" &
part swarm --seeds "$seeds" &
wait

cat <<TEXT
# What the simulator showed

Written by \`tests/sim-results.sh\` at commit $commit on $(date -u +%Y-%m-%d), $(nproc) cores, $(rustc --version | cut -d' ' -f1-2).
All parts ran at once, so that rates are lower than of each alone.

## The swarm

$(cat "$parts/swarm")

## Unreliable servers

$(cat "$parts/liars")

## The NAT matrix

Equal links, a round trip of 40 ms to every server, nothing lost.

$(cat "$parts/matrix")

## The NAT matrix with 10 % of all packets lost

$(cat "$parts/lossy")
TEXT
! grep -q '^exit code [^0]' "$parts"/*
