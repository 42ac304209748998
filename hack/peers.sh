#!/usr/bin/env bash
# Prints the path of a folder with other userspace WireGuard implementations: wireguard-go, gotatun (of gotatun-cli) and
# boringtun-cli: hack/peers.sh [--debug]
#
#   --debug  for tests of what they say to each other (WARREN_PEERS), not of how fast: compiled without optimisation,
#            unless optimised ones are there already. Some 2 minutes on two cores instead of 10.
#
# wireguard-go is Debian's, of the suite that gets the newest: Debian 12's own is from before it knew segmentation
# offload. apt fetches it into a private folder and checks its signature; nothing is installed, no root is needed. The
# other two are compiled from crates.io by `cargo install --locked`. All stay in the cache; once they are there,
# neither the network nor a compiler is asked again. The file `versions` beside the programs says what they are.
#
# Stdout is the path and nothing else; progress and errors go to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh

GOTATUN_VERSION=0.10.2
BORINGTUN_VERSION=0.7.1
# The first suite that can be reached and has it, is asked.
SUITES=(sid trixie)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# Raised with every change to what is fetched or built.
REVISION=1
# What cargo is told of how to compile.
PROFILE=()
CACHE="${WARREN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren}/peers"

main() {
    local debug=''
    case "${1:-}" in
    '') ;;
    --debug) debug=-debug ;;
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/peers.sh
        return
        ;;
    *) die "unknown argument '$1': --debug" ;;
    esac
    mkdir -p "$CACHE"
    CACHE=$(cd "$CACHE" && pwd)
    local peers="$CACHE/$REVISION-gotatun-$GOTATUN_VERSION-boringtun-$BORINGTUN_VERSION"
    if ! complete "$peers"; then
        peers+=$debug
    fi
    if ! complete "$peers"; then
        [ -z "$debug" ] || PROFILE=(--profile dev --config profile.dev.debug=false)
        exec 9>"$CACHE/lock"
        flock --nonblock 9 || { say "waiting for another build in $CACHE" && flock 9; }
        # Who waited finds it done.
        complete "$peers" || build "$peers"
    fi
    printf '%s\n' "$peers"
}

complete() { [ -x "$1/wireguard-go" ] && [ -x "$1/gotatun" ] && [ -x "$1/boringtun-cli" ] && [ -f "$1/versions" ]; }

# build DESTINATION: all of them, moved into place in one step.
build() {
    # Left-overs of a killed build are safe to remove: this process holds the lock.
    rm -rf "$CACHE"/build.*
    WORK=$(mktemp -d "$CACHE/build.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir "$WORK/out"
    wireguard_go
    crate gotatun-cli "$GOTATUN_VERSION" gotatun
    crate boringtun-cli "$BORINGTUN_VERSION" boringtun-cli
    rm -rf "$1"
    mv -T "$WORK/out" "$1"
}

wireguard_go() {
    local suite mirror version
    have apt-get || die "this is not a Debian system: put wireguard-go, gotatun, boringtun-cli and a file 'versions'" \
        "into $peers yourself"
    [ -f "$KEYRING" ] || die "there is no $KEYRING to check Debian's signatures with: install debian-archive-keyring"
    # The mirror that the machine uses already.
    # shellcheck disable=SC2016 # apt replaces it, not the shell
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        head -n 1)
    for suite in "${SUITES[@]}"; do
        say "fetching wireguard-go of Debian $suite"
        private_apt "${mirror:-http://deb.debian.org/debian}" "$suite"
        if private apt-get update -qq >&2 &&
            (cd "$WORK/$suite" && private apt-get download -qq wireguard-go) >&2; then
            version=$(dpkg-deb --field "$WORK/$suite"/wireguard-go_*.deb Version)
            dpkg-deb --extract "$WORK/$suite"/wireguard-go_*.deb "$WORK/root"
            cp "$WORK/root/usr/bin/wireguard-go" "$WORK/out/"
            "$WORK/out/wireguard-go" --version >/dev/null || die "wireguard-go of Debian $suite does not run here"
            printf 'wireguard-go %s (Debian %s)\n' "$version" "$suite" >>"$WORK/out/versions"
            return
        fi
    done
    die "none of these Debian suites could be had from ${mirror:-http://deb.debian.org/debian}: ${SUITES[*]}"
}

# private_apt MIRROR SUITE: an apt of our own that knows that suite and nothing of this system but its proxies.
private_apt() {
    local here="$WORK/$2"
    mkdir -p "$here/sources" "$here/lists/partial" "$here/cache/archives/partial"
    cat >"$here/sources/debian.sources" <<SOURCES
Types: deb
URIs: $1
Suites: $2
Components: main
Signed-By: $KEYRING
SOURCES
    APT_CONF="$here/apt.conf"
    cat >"$APT_CONF" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$here/sources";
Dir::State::lists "$here/lists";
Dir::State::status "/dev/null";
Dir::Cache "$here/cache";
// The user apt would change to cannot enter a folder below somebody's home.
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
// Without signature there is no package: said here too, whatever the system's configuration allows.
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
}

# private COMMAND...: an apt program with the private configuration.
private() {
    local program=$1
    shift
    "$program" -c="$APT_CONF" "$@"
}

# crate NAME VERSION PROGRAM: compile that and take the one program it has.
crate() {
    say "compiling $1 $2 (minutes, once)"
    # Its own target folder: a CARGO_TARGET_DIR of the caller would be filled with it. Not in this folder: the
    # configuration of this workspace is none of theirs.
    (cd "$WORK" && env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install --locked --quiet ${PROFILE[@]+"${PROFILE[@]}"} \
        --root "$WORK/cargo" --target-dir "$WORK/target" --version "$2" "$1") >&2 ||
        die "could not install $1: 'cargo install --locked --version $2 $1' must work"
    cp "$WORK/cargo/bin/$3" "$WORK/out/"
    printf '%s %s (crates.io)\n' "$3" "$2" >>"$WORK/out/versions"
}

main "$@"
