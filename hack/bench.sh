#!/usr/bin/env bash
# Measures Warren on this machine: hack/bench.sh NAME [--json FILE] [--rounds N]
#
#   cni        attaching and detaching pods, beside Debian's ptp and host-local plugins
#   plan       planning for 1,000 and 5,000 nodes; memory of an agent with 1,000 peers
#   join       from a node's annotation to the first packet, 10 nodes
#   idle       60 s of a mesh of 3 nodes where nothing happens
#   switch     packets lost while encryption, overlay, fallback and MTU are changed, 4 nodes
#   rotation   packets lost while keys are rotated, and how long that takes, 5 nodes
#   policy     1,000 policies for 10,000 pods: compiling, one change, memory; TCP with them, beside none and beside iptables' pairs
#   agent      an agent in that cluster: memory, and the time from a change in the API to the kernel
#   dataplane  warren-wg beside wireguard-go, gotatun, boringtun-cli (hack/peers.sh gets them) and no tunnel
#
#   --json FILE  write the report there too
#   --rounds N   how often everything is measured, 3 or more (3)
#
# For dataplane only, for a look at a part while working on it; a bar is told where all that it compares was measured:
#   --systems A,B  only warren, wireguard-go, gotatun, boringtun or veth
#   --cases A,B    only tcp1, tcp4, tcp16, both, udp1200, udp64, idle, load, memory or peers
#   --quick        one round
#
# Sets up what is missing (see hack/setup.sh) and builds in release mode. Prints a table and then one line for each figure
# that must be reached. The exit status is 0 only if all are. On a busy machine figures mean little: run nothing else
# meanwhile.
set -euo pipefail
CALLED_IN=$PWD
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

main() {
    local name='' arguments=() part=() packages=(--workspace) peers
    while [ $# -gt 0 ]; do
        case "$1" in
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/bench.sh
            exit 0
            ;;
        --json)
            [ $# -ge 2 ] || die "--json needs a file"
            arguments+=(--json "$(absolute "$2")")
            shift
            ;;
        --rounds)
            [ $# -ge 2 ] || die "--rounds needs a number"
            arguments+=(--rounds "$2")
            shift
            ;;
        --systems | --cases)
            [ $# -ge 2 ] || die "$1 needs a list"
            part+=("$1" "$2")
            shift
            ;;
        --quick) part+=("$1") ;;
        cni | plan | join | idle | switch | rotation | policy | agent | dataplane) name=$1 ;;
        *) die "unknown argument '$1': see hack/bench.sh --help" ;;
        esac
        shift
    done
    [ -n "$name" ] || die "name a benchmark: cni, plan, join, idle, switch, rotation, policy, agent or dataplane"
    [ "$name" = dataplane ] || [ ${#part[@]} -eq 0 ] || die "${part[0]} is for dataplane only"

    hack/setup.sh demo
    # The peers.
    case "$name" in
    cni) ensure_debs /usr/lib/cni/ptp=containernetworking-plugins ;;
    policy)
        ensure_debs iperf3 iptables
        packages=(--package warren-bench)
        ;;
    dataplane)
        ensure_debs iperf3
        peers=$(hack/peers.sh)
        export PATH="$peers:$PATH"
        # No more than it runs.
        packages=(--package warren-dataplane --package warren-bench)
        ;;
    esac
    say 'building in release mode (many minutes the first time)'
    cargo build --locked --release "${packages[@]}" --bins
    local target
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    say "measuring $name"
    WARREN_BIN_DIR="$target/release" exec "$target/release/warren-bench" "$name" \
        ${arguments[@]+"${arguments[@]}"} ${part[@]+"${part[@]}"}
}

# absolute FILE: as the caller means it.
absolute() {
    case "$1" in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$CALLED_IN" "$1" ;;
    esac
}

main "$@"
