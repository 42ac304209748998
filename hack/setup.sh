#!/usr/bin/env bash
# Sets up a fresh Debian 12 for Warren: hack/setup.sh [demo|test|real-api]
#
#   demo      what hack/demo.sh needs: network tools, a linker, the Rust toolchain
#   test      that, and what hack/test.sh needs: kubectl, CNI plugins, containerd, cnitool by hack/cnitool.sh,
#             cargo-nextest, cargo-deny (the default)
#   real-api  etcd and kube-apiserver, by hack/real-api.sh
#
# Runs as often as you like: it looks first and adds only what is missing. Where nothing is missing it needs
# neither root nor the network. Beside Debian packages it writes only below ~/.cargo, ~/.rustup and ~/.cache/warren.
# No service is started: a package that would do so is unpacked, not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

# What cargo installs if it is absent; an installed one of any version is used as it is.
NEXTEST_VERSION=0.9.128
DENY_VERSION=0.20.2

main() {
    case "${1:-test}" in
    demo) demo ;;
    test) demo && for_tests ;;
    real-api) hack/real-api.sh >/dev/null ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" ;;
    *) die "unknown section '$1': demo, test or real-api" ;;
    esac
}

demo() {
    ensure_debs ip=iproute2 nft=nftables wg=wireguard-tools tcpdump ping=iputils-ping ps=procps \
        gcc /usr/include/stdio.h=libc6-dev unshare=util-linux /etc/ssl/certs/ca-certificates.crt=ca-certificates
    rust_toolchain
}

for_tests() {
    ensure_debs git /usr/lib/cni/portmap=containernetworking-plugins \
        "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketimeMT.so.1=libfaketime"
    # For the suite on a stock container runtime.
    unpack_debs containerd runc
    # For the suite of CNI conformance, which says so where it is missing; nothing else needs it.
    hack/cnitool.sh >/dev/null || say "no cnitool: the conformance suite will be skipped, or fail where no skip is allowed"
    # Its own package wherever there is one; the Debian package conflicts with the upstream one.
    have kubectl || ensure_debs kubectl=kubernetes-client
    rust_component clippy
    rust_component rustfmt
    cargo_tool cargo-nextest "$NEXTEST_VERSION"
    cargo_tool cargo-deny "$DENY_VERSION"
}

# A cargo that is new enough; Debian 12's own is not. rustup is asked if there is one, else fetched from its home.
rust_toolchain() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo_version)
    if [ -n "$found" ] && at_least "$found" "$wanted"; then
        return 0
    fi
    say "no cargo $wanted or newer (found: ${found:-none}); installing the stable Rust toolchain for $(id -un)"
    if have rustup; then
        rustup toolchain install stable --profile minimal >&2 || toolchain_remedy "$wanted"
        rustup default stable >&2
    else
        ensure_debs curl
        # Not piped into sh: half a script must not run. It is what https://sh.rustup.rs serves, at its home.
        local init home=${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}
        init=$(mktemp)
        if ! curl --proto '=https' --tlsv1.2 --silent --show-error --fail "$home/rustup-init.sh" --output "$init"; then
            rm -f "$init"
            toolchain_remedy "$wanted"
        fi
        sh "$init" -y --no-modify-path --profile minimal --default-toolchain stable >&2 || toolchain_remedy "$wanted"
        rm -f "$init"
        hash -r
    fi
    found=$(cargo_version)
    if [ -z "$found" ] || ! at_least "$found" "$wanted"; then
        die "'cargo' on PATH is ${found:-missing}, still older than $wanted: $(command -v cargo || true)." \
            "Put ~/.cargo/bin first on PATH and start again"
    fi
}

toolchain_remedy() {
    die "could not install Rust. Get cargo $1 or newer, for example as https://rustup.rs describes, put it on PATH and start again"
}

# Prints nothing if there is no cargo.
cargo_version() { { cargo --version 2>/dev/null || true; } | cut -d ' ' -f 2; }

# rust_component NAME: clippy or rustfmt of the toolchain in use.
rust_component() {
    local subcommand=$1
    [ "$subcommand" != rustfmt ] || subcommand=fmt
    cargo "$subcommand" --version >/dev/null 2>&1 && return
    have rustup || die "'cargo $subcommand' is missing: install the $1 that belongs to your cargo"
    say "installing $1"
    rustup component add "$1" >&2
}

# cargo_tool NAME VERSION: a cargo subcommand, compiled once into ~/.cargo/bin.
cargo_tool() {
    have "$1" && return
    say "compiling $1 $2 (a few minutes, once)"
    # Built without optimisation: it runs for seconds, so compiling it well takes longer than it would ever save.
    # Its own target folder: a CARGO_TARGET_DIR of the caller would be filled with it.
    local target
    target=$(mktemp -d)
    if ! env -u CARGO_TARGET_DIR cargo install --locked --quiet --profile dev --config profile.dev.debug=false \
        --target-dir "$target" --version "$2" "$1" >&2; then
        rm -rf "$target"
        die "could not install $1: 'cargo install --locked $1' must work"
    fi
    rm -rf "$target"
}

main "$@"
