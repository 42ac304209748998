#!/usr/bin/env bash
# Runs every check and test of the repository: hack/test.sh [--quick] [--require-all]
#
#   --quick        without a real Kubernetes API, without a virtual machine and without cargo-deny
#   --require-all  a test that would be skipped fails instead; the same as WARREN_REQUIRE=all
#
# Sets up first whatever is missing (see hack/setup.sh). Stops at the first stage that fails; its name is on the
# last line.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

QUICK=no
# The stage under way, for the last line.
STAGE='reading the arguments'

main() {
    arguments "$@"
    trap 'finish $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    stage 'set-up' hack/setup.sh test
    stage 'format' cargo fmt --all --check
    stage 'clippy' cargo clippy --locked --workspace --all-targets -- --deny warnings
    stage 'floors' cargo xtask floors
    stage 'generated files' cargo xtask generate --check
    if [ "$QUICK" = no ]; then
        stage 'cargo-deny' cargo deny --log-level error check bans licenses sources
        stage 'real API' real_api
    fi
    stage 'other implementations of WireGuard' peers
    stage 'programs' cargo build --locked --workspace --bins
    stage 'tests' tests
    [ "$QUICK" = yes ] || stage 'virtual machine' virtual_machine
    stage 'documentation examples' cargo test --locked --workspace --doc
    stage 'documentation' documentation
}

arguments() {
    local argument
    for argument in "$@"; do
        case "$argument" in
        --quick) QUICK=yes ;;
        --require-all) export WARREN_REQUIRE=all ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/test.sh
            exit 0
            ;;
        *) die "unknown argument '$argument': --quick, --require-all" ;;
        esac
    done
    if [ "$QUICK" = yes ] && [ "${WARREN_REQUIRE:-}" = all ]; then
        die "--quick leaves tests out and WARREN_REQUIRE=all forbids it: choose one"
    fi
}

# stage NAME COMMAND...: run it in this shell, so that what it exports stays, and say how long it took.
stage() {
    local started=$SECONDS
    STAGE=$1
    shift
    say "$STAGE"
    "$@"
    say "$STAGE: ok, $((SECONDS - started)) s"
}

# The suites of the lab find etcd and kube-apiserver here.
real_api() {
    KUBEBUILDER_ASSETS=$(hack/real-api.sh)
    export KUBEBUILDER_ASSETS
}

# The tests of warren-wg find the others here. The package comes from a newer Debian, which not everybody can reach.
peers() {
    if WARREN_PEERS=$(hack/peers.sh --debug); then
        export WARREN_PEERS
    else
        say "no other implementations: tests with them will be skipped, or fail where no skip is allowed"
        unset WARREN_PEERS
    fi
}

# Unit, property and lab suites. The lab runs the programs themselves.
tests() {
    local target
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    WARREN_BIN_DIR="$target/debug" cargo nextest run --locked --workspace
}

# The suites that need a kernel with WireGuard and IPIP.
virtual_machine() {
    if [ "$(uname -m)" != x86_64 ] && [ "${WARREN_REQUIRE:-}" != all ]; then
        say "skipped: the virtual machine is an x86_64 one"
    else
        hack/vm.sh
    fi
}

documentation() { RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps; }

finish() {
    if [ "$1" -eq 0 ]; then
        say "all passed, $SECONDS s"
    else
        say "FAILED: $STAGE (status $1, after $SECONDS s)"
    fi
}

main "$@"
