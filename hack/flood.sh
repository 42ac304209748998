#!/usr/bin/env bash
# Measures what a flood costs a tunnel of warren-wg: hack/flood.sh
#
# A TCP stream crosses a tunnel as fast as it can while a third node sends 30,000 datagrams a second from invented addresses:
# initiations with a right and with a wrong mac1, and other things of all lengths. It is compared with the same flood to a port
# where nobody listens. The exit status is 0 only if the tunnel keeps 80 % of its throughput (the median), a new peer
# gets through meanwhile, and the device's memory stays as it was. The same with a slower stream is part of hack/test.sh.
#
# Sets up what is missing (see hack/setup.sh) and needs root or user namespaces. Run nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

main() {
    local target
    case "${1:-}" in
    '') ;;
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/flood.sh
        return
        ;;
    *) die "unknown argument '$1'" ;;
    esac
    hack/setup.sh demo
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    say 'building in release mode'
    cargo build --locked --release --package warren-dataplane --bins
    WARREN_REQUIRE=all WARREN_FLOOD_PROGRAM="$target/release/warren-wg" \
        cargo test --locked --package warren-dataplane --test device -- --exact --nocapture \
        flood::a_flood_of_strangers_costs_a_tunnel_little_and_keeps_no_peer_out
}

main "$@"
