#!/usr/bin/env bash
# The long runs: the gate, every fault of the mutation check, the demo on a release build, and the
# benchmark. Results go to docs/results/, named by date and commit, so that a number can be traced
# to what produced it.
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
tests/mutants.sh | tee "$name-mutants.txt"

# Two minutes of every fuzz target, from a seed that the next commit does not share.
PORTOLAN_FUZZ_SECONDS=120 PORTOLAN_FUZZ_SEED=$((16#${commit:0:12})) \
    cargo test --release --locked -p portolan-core --test fuzz -- --show-output

# Unreliable AutoNAT v1 servers, a thousand seeds beside evidence and a thousand without any.
PORTOLAN_HEARSAY=1000 cargo test --release --locked -p portolan-sim --test hearsay -- --nocapture

cargo build --release --locked
cargo build --release --locked -p portolan-tests --bin bench-verdict --bin bench-relay
# The same folder that cargo builds into, wherever the environment has put it.
target=$(cargo metadata --format-version 1 --no-deps --locked |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# The simulated world, whole. What it printed is committed with the commit's hash.
tests/sim-results.sh "$target/release/portolan" "$commit" >docs/results-sim.md

"$target/release/portolan" demo --json >"$name-demo.json"
"$target/release/bench-verdict" >"$name-bench-verdict.json"

"$target/release/bench-relay" >"$name-bench-relay.json"

# Ten minutes of a server that is asked every two seconds, recorded, and then replayed.
night=$(mktemp -d)
"$target/release/portolan" serve --allow-private --dial-from 127.1.0.1 --record "$night/ten.rec" \
    --listen /ip4/127.0.0.1/tcp/0 --listen /ip4/127.0.0.1/udp/0/quic-v1 >"$night/addresses" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$night"' EXIT
until [[ $(wc -l <"$night/addresses") -ge 2 ]]; do sleep 0.1; done
peers=$(sed 's/^/--peer /' "$night/addresses" | tr '\n' ' ')
for _ in $(seq 300); do
    # shellcheck disable=SC2086 # Every word is one argument.
    "$target/release/portolan" check --allow-private $peers --timeout 5 >"$night/report" || true
    sleep 2
done
kill "$server"
wait "$server"
{
    ls -l "$night/ten.rec" | awk '{ print "bytes: " $5 }'
    "$target/release/portolan" replay --quiet "$night/ten.rec" 2>&1 >"$night/verdicts"
} >"$name-replay.txt"

{
    echo "commit: $commit"
    echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    echo "kernel: $(uname -s) $(uname -r | cut -d- -f1)"
    echo "cpus: $(nproc)"
    rustc --version
} >"$name-machine.txt"
echo "results: $name-*"
