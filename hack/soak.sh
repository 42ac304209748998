#!/usr/bin/env bash
# Soaks the userspace WireGuard device under the address sanitizer: hack/soak.sh [MINUTES]
#
# For so many minutes (10) two devices are configured anew all the time (peers removed and added, private and preshared
# keys, ports, addresses, families, MTU, 200 peers at once, many clients) while TCP and UDP of both families cross them in
# both directions and a third node sends nonsense. The exit status is 0 only if the two could reach each other after
# every change, the sanitizer has found nothing, no thread has ended the process and its memory has stayed as it was after a
# quarter of the time.
#
# Sets up what is missing (see hack/setup.sh) and needs root or user namespaces. Reports of the sanitizer are in the
# output. It does not look for memory that is lost at the end: the device cannot be traced, not even by itself. What is
# lost while it runs shows in its memory.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

main() {
    local minutes=${1:-10} host target
    case "$minutes" in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/soak.sh
        return
        ;;
    '' | 0 | *[!0-9]*) die "unknown argument '$minutes': a number of minutes" ;;
    esac
    hack/setup.sh demo
    host=$(rustc -vV | sed -n 's/^host: //p')
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    say 'building the device with the address sanitizer'
    # A separate folder: other flags would make cargo build everything anew, there and back. The sanitizer is part of the
    # toolchain, but its flag is not stable.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
        cargo build --locked --package warren-dataplane --bins --target "$host" --target-dir "$target/asan"
    say "soaking for $minutes minutes"
    # Freed memory is kept back from use for long by default, which would look like a leak.
    ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 \
        WARREN_REQUIRE=all WARREN_SOAK_SECONDS=$((minutes * 60)) \
        WARREN_SOAK_PROGRAM="$target/asan/$host/debug/warren-wg" \
        cargo test --locked --package warren-dataplane --test device -- --exact --nocapture \
        soak::everything_at_once_and_for_long
    say "clean after $minutes minutes"
}

main "$@"
