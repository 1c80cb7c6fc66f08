#!/usr/bin/env bash
# Installs what the tests need beside the Rust toolchain: tools for the network-namespace lab, a browser, and
# the JavaScript peers of the interop tests. Run it as often as you like; it does only what is
# missing. Debian packages need root (or sudo).
set -euo pipefail
cd "$(dirname "$0")/.."

# command:package, one for each tool that a test calls.
tools=(
    ip:iproute2
    nft:nftables
    conntrack:conntrack
    miniupnpd:miniupnpd
    miniupnpd:miniupnpd-nftables
    upnpc:miniupnpc
    natpmpc:natpmpc
    chromium:chromium
)

missing=()
for tool in "${tools[@]}"; do
    if ! PATH="$PATH:/usr/sbin:/sbin" command -v "${tool%%:*}" >/dev/null; then
        missing+=("${tool##*:}")
    fi
done
if ((${#missing[@]} > 0)); then
    as_root=()
    if [[ $(id -u) -ne 0 ]]; then
        as_root=(sudo)
    fi
    # Nothing is asked, and the router's daemon is not started: unasked it stays off.
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The lock files decide the versions; a stamp says which lock file is installed.
for js in tests/interop/js tests/browser; do
    stamp=$js/node_modules/.portolan-lock
    if ! cmp -s "$js/package-lock.json" "$stamp"; then
        (cd "$js" && npm ci --no-audit --no-fund --loglevel=error)
        cp "$js/package-lock.json" "$stamp"
    fi
done
echo "lab: ready"
