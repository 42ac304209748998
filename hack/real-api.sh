#!/usr/bin/env bash
# Prints the path of a folder that holds `etcd` and `kube-apiserver`, for tests on a real Kubernetes API.
#
# In this order: $KUBEBUILDER_ASSETS, if it holds both; a copy made earlier; a fresh build. kube-apiserver is
# not packaged in Debian 12, but its source package `kubernetes` holds it with all dependencies. Nothing is
# installed and no root is needed: packages are fetched by apt into private folders and unpacked. (Installing
# etcd-server would also start a service and enable it at boot.)
#
# Takes about 3 minutes, 150 MB of download and 2 GB of disk on the way; 150 MB stay in the cache.
# Stdout is the path and nothing else; progress and errors go to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh
# shellcheck source=hack/private-apt.sh
. hack/private-apt.sh

VERSION=1.20.2
GO_VERSION=1.19
# Raised with every change to what is built, so that a copy made before it is not taken for it.
REVISION=2
CACHE="${WARREN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren}/real-api"

main() {
    local assets="$CACHE/v$VERSION-$REVISION"
    if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
        if complete "$KUBEBUILDER_ASSETS"; then
            (cd "$KUBEBUILDER_ASSETS" && pwd)
            return
        fi
        say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks etcd or kube-apiserver; not used"
    fi
    if ! complete "$assets"; then
        have apt-get || die "this is not a Debian system; set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
        mkdir -p "$CACHE"
        CACHE=$(cd "$CACHE" && pwd)
        assets="$CACHE/v$VERSION-$REVISION"
        exec 9>"$CACHE/lock"
        flock --nonblock 9 || { say "waiting for another build of the Kubernetes API in $CACHE" && flock 9; }
        # Who waited finds it done.
        complete "$assets" || build "$assets"
    fi
    (cd "$assets" && pwd)
}

complete() { [ -x "$1/etcd" ] && [ -x "$1/kube-apiserver" ]; }

# build DESTINATION: both programs, tried out and then moved into place in one step.
build() {
    local started=$SECONDS
    say "building etcd and kube-apiserver v$VERSION (about 3 minutes, once)"
    # Beside the destination, because only a rename within one file system is atomic. Left-overs of a killed
    # build are safe to remove: this process holds the lock.
    rm -rf "$CACHE"/build.*
    WORK=$(mktemp -d "$CACHE/build.XXXXXX")
    trap 'leave $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    private_apt machine_sources
    mkdir "$WORK/out"
    fetch_etcd "$WORK/out/etcd"
    fetch_go
    fetch_kubernetes
    fit_source
    build_apiserver "$WORK/out/kube-apiserver"

    "$WORK/out/etcd" --version >/dev/null || die "the unpacked etcd does not run here"
    [ "$("$WORK/out/kube-apiserver" --version)" = "Kubernetes v$VERSION" ] ||
        die "the built kube-apiserver calls itself $("$WORK/out/kube-apiserver" --version), not v$VERSION"
    rm -rf "$1"
    mv -T "$WORK/out" "$1"
    say "etcd and kube-apiserver v$VERSION are in $1 ($((SECONDS - started)) s)"
}

leave() {
    rm -rf "$WORK"
    [ "$1" -eq 0 ] || printf 'real-api.sh: no Kubernetes API: the last step above failed; nothing was kept\n' >&2
}

# The machine's own sources with the source packages enabled.
machine_sources() {
    local list parts
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    # One-line style: a deb-src line beside each deb line. Deb822 style: both types.
    # Either may be absent.
    cat "$list" "$parts"/*.list 2>/dev/null |
        sed -nE 's/^[[:space:]]*deb([[:space:]].*)/deb\1\ndeb-src\1/p' >"$1/lines.list" || true
    cp "$parts"/*.sources "$1/" 2>/dev/null || true
    find "$1" -name '*.sources' -exec sed -i -E 's/^Types:.*/Types: deb deb-src/' {} +
}

# deb PACKAGE...: fetch_deb or the end.
deb() {
    fetch_deb "$@" ||
        die "could not download $*: 'apt-get download $*' must work, or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
}

fetch_etcd() {
    local etcd
    if ! etcd=$(command -v etcd); then
        say "unpacking Debian's etcd"
        deb etcd-server
        etcd="$WORK/root/usr/bin/etcd"
    fi
    cp -L "$etcd" "$1"
}

# Sets GO. It must be Debian's version: newer ones refuse parts of this old source.
fetch_go() {
    GO="/usr/lib/go-$GO_VERSION/bin/go"
    if [ ! -x "$GO" ] || [ ! -d "/usr/lib/go-$GO_VERSION/src/runtime" ]; then
        say "unpacking Debian's Go $GO_VERSION"
        deb "golang-$GO_VERSION-go" "golang-$GO_VERSION-src"
        GO="$WORK/root/usr/lib/go-$GO_VERSION/bin/go"
    fi
}

fetch_kubernetes() {
    say "fetching the source of Kubernetes $VERSION"
    SOURCE="$WORK/go/src/k8s.io/kubernetes"
    # Debian calls it 1.20.5+really1.20.2.
    fetch_source kubernetes "kubernetes_*$VERSION.orig.tar.*" "$SOURCE" ||
        die "no source package kubernetes $VERSION: apt's mirrors do not carry Debian 12 (bookworm) with its sources;" \
            "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
}

# This Kubernetes was written for Go 1.15. Two of its vendored libraries look behind Go's curtain and break from 1.18
# on; without this the server fails or forgets the name of custom resources, and refuses every empty string in them.
fit_source() {
    local reflect2=github.com/modern-go/reflect2 validate=vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go
    # The iterator over maps got another signature; Debian has the release that knows it.
    deb golang-github-modern-go-reflect2-dev
    rm -r "$SOURCE/vendor/$reflect2"
    cp -r "$WORK/root/usr/share/gocode/src/$reflect2" "$SOURCE/vendor/$reflect2"
    # An empty string now compares equal to the zero value, which this takes for null. Kubernetes itself removed the
    # comparison later.
    sed -i 's/ || reflect\.DeepEqual(reflect\.Zero(reflect\.TypeOf(data)), reflect\.ValueOf(data))//' "$SOURCE/$validate"
    if grep -q 'reflect\.Zero' "$SOURCE/$validate"; then
        die "$validate is not as expected: this script fits Kubernetes $VERSION only"
    fi
}

build_apiserver() {
    local vendor=k8s.io/kubernetes/vendor package version=()
    go_environment "$GO" "$WORK/go"
    cd "$SOURCE"

    say "generating the OpenAPI definitions"
    "$GO" build -o "$WORK/openapi-gen" "$vendor/k8s.io/kube-openapi/cmd/openapi-gen" >&2
    "$WORK/openapi-gen" --go-header-file hack/boilerplate/boilerplate.generatego.txt \
        --output-file-base zz_generated.openapi --output-package k8s.io/kubernetes/pkg/generated/openapi \
        --report-filename "$WORK/api-violations.txt" --input-dirs "$(openapi_packages | paste -sd,)" >&2

    say "compiling kube-apiserver"
    # The version stands twice: --version prints the first, the API's /version answers with the second.
    for package in "$vendor/k8s.io/component-base/version" "$vendor/k8s.io/client-go/pkg/version"; do
        version+=(-X "$package.gitVersion=v$VERSION" -X "$package.gitMajor=1" -X "$package.gitMinor=20")
    done
    "$GO" build -o "$1" -ldflags "-s -w ${version[*]}" ./cmd/kube-apiserver >&2
    cd - >/dev/null
}

# The packages that ask for OpenAPI definitions, and four that are always part of them.
openapi_packages() {
    {
        grep -rl --include=doc.go '+k8s:openapi-gen=' staging/src/k8s.io | sed 's,^staging/src/,k8s.io/kubernetes/vendor/,'
        grep -rl --include=doc.go '+k8s:openapi-gen=' pkg | sed 's,^,k8s.io/kubernetes/,'
    } | xargs -n 1 dirname
    printf 'k8s.io/kubernetes/vendor/k8s.io/apimachinery/pkg/%s\n' api/resource util/intstr runtime version
}

main
