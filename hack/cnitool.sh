#!/usr/bin/env bash
# Prints the path of `cnitool`, the reference client of CNI plugins, for tests of warren-cni: hack/cnitool.sh
#
# In this order: one on PATH that knows CNI 1.1.0; a copy made earlier; a fresh build. No Debian package has the program, but
# the source package golang-github-appc-cni holds it, with all that it needs but Go itself. Debian 12's release of it speaks CNI
# up to 1.0.0, so the source is taken from testing, and, as that is too new for Debian 12's Go, Go from Debian 13. Nothing
# is installed, the system's package lists stay as they are, and no root is needed.
#
# Takes about half a minute, 70 MB of download and 600 MB of disk on the way; 3 MB stay in the cache.
# Stdout is the path and nothing else; progress and errors go to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh
# shellcheck source=hack/private-apt.sh
. hack/private-apt.sh

PACKAGE=golang-github-appc-cni
GO_VERSION=1.24
TOOL="$UNPACKED/usr/bin/cnitool"

main() {
    local found
    # lib.sh has put the copy made earlier on PATH.
    if found=$(command -v cnitool) && knows_gc "$found"; then
        printf '%s\n' "$found"
        return
    fi
    have apt-get || die "this is not a Debian system; put cnitool 1.3 or newer on PATH"
    mkdir -p "${TOOL%/*}"
    exec 9>"${TOOL%/*}/.cnitool.lock"
    flock --nonblock 9 || { say "waiting for another build of cnitool" && flock 9; }
    # Who waited finds it done.
    if ! { [ -x "$TOOL" ] && knows_gc "$TOOL"; }; then
        build
    fi
    printf '%s\n' "$TOOL"
}

# knows_gc PROGRAM: GC came to it with CNI 1.1.0. Without arguments it says what it can do, and fails.
knows_gc() { { "$1" 2>&1 || true; } | grep -q '  cnitool gc '; }

build() {
    local started=$SECONDS source go
    say "building cnitool (about half a minute, once)"
    # Beside the destination, because only a rename within one file system is atomic.
    WORK=$(mktemp -d "${TOOL%/*}/.cnitool.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    private_apt newer_sources
    source="$WORK/go/src/github.com/containernetworking/cni"
    fetch_source "$PACKAGE" "${PACKAGE}_*.orig.tar.*" "$source" ||
        die "no source package $PACKAGE in Debian testing; put cnitool 1.3 or newer on PATH"
    go="/usr/lib/go-$GO_VERSION/bin/go"
    if [ ! -x "$go" ] || [ ! -d "/usr/lib/go-$GO_VERSION/src/runtime" ]; then
        say "unpacking Debian's Go $GO_VERSION"
        fetch_deb "golang-$GO_VERSION-go" "golang-$GO_VERSION-src" ||
            die "could not download Go $GO_VERSION of Debian 13; put cnitool 1.3 or newer on PATH"
        go="$WORK/root$go"
    fi
    say "compiling cnitool"
    go_environment "$go" "$WORK/go"
    "$go" build -trimpath -ldflags '-s -w' -o "$WORK/cnitool" github.com/containernetworking/cni/cnitool >&2
    knows_gc "$WORK/cnitool" || die "the cnitool that was built does not know CNI 1.1.0"
    mv -T "$WORK/cnitool" "$TOOL"
    say "cnitool is in ${TOOL%/*} ($((SECONDS - started)) s)"
}

# newer_sources FOLDER: the two suites, on the mirror of Debian that the machine uses.
newer_sources() {
    local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt fills these in.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian}
    [ -e "$keys" ] || die "no $keys: install debian-archive-keyring"
    cat >"$1/newer.list" <<LIST
deb [signed-by=$keys] $mirror trixie main
deb-src [signed-by=$keys] $mirror testing main
LIST
}

main
