#!/usr/bin/env bash
# Shows Warren at work on this machine: hack/demo.sh [--nodes N] [--keep] [--real]
#
# Sets up what is missing (see hack/setup.sh), builds, and brings up a cluster whose nodes are network namespaces, each
# with its own agent; attaches pods, tries every connection over IPv4 and IPv6, shows what crossed the wire between the
# nodes, and removes everything it made. Nothing of it shows on the machine meanwhile, and no root is needed.
#
#   --nodes N  how many nodes (3)
#   --keep     leave the cluster up, and say how to look around and how to take it down
#   --real     etcd and kube-apiserver instead of the API that is built in; builds them first where there are none
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

main() {
    local argument sections=(demo)
    for argument in "$@"; do
        case "$argument" in
        --real) sections+=(real-api) ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/demo.sh
            exit 0
            ;;
        esac
    done
    local section
    for section in "${sections[@]}"; do
        hack/setup.sh "$section"
    done
    say 'building (some minutes the first time, then seconds)'
    cargo build --locked --workspace --bins
    local target
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    # In place of this script, so that Ctrl-C and signals reach the one who cleans up.
    exec "$target/debug/warren-lab" demo "$@"
}

main "$@"
