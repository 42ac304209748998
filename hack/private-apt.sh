# shellcheck shell=bash
# Shell functions to fetch from Debian's archive without touching the system's package lists: sourced after lib.sh, never
# run. Who sources it sets WORK, a folder that is removed in the end; everything fetched is below it.

# private_apt FUNCTION: an apt of our own: the machine's keys and proxies, but its lists and state in $WORK. FUNCTION writes the
# sources, as *.list or *.sources, into the folder that it is given.
private_apt() {
    local etc="$WORK/apt/sources.list.d"
    mkdir -p "$etc" "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial" "$WORK/debs"
    "$1" "$etc"
    cat >"$WORK/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$etc";
Dir::State::lists "$WORK/apt/lists";
Dir::Cache "$WORK/apt/cache";
// The user apt would change to cannot enter a folder below somebody's home.
APT::Sandbox::User "root";
// What a desktop wants to know about packages.
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
// A mirror that does not answer is given up.
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
// These act on the system's own cache.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
    say "fetching package lists"
    # A third party's archive may have no sources or be down; what matters is whether the packages are found below.
    private apt-get update -qq >&2 || true
}

# private COMMAND...: an apt program with the private configuration.
private() {
    local program=$1
    shift
    "$program" -c="$WORK/apt/apt.conf" "$@"
}

# fetch_deb PACKAGE...: unpack Debian packages into $WORK/root. Fails if they cannot be had.
fetch_deb() {
    (cd "$WORK/debs" && private apt-get download -qq "$@") >&2 || return
    local deb
    for deb in "$WORK"/debs/*.deb; do
        dpkg-deb --extract "$deb" "$WORK/root"
        rm "$deb"
    done
}

# fetch_source PACKAGE TARBALL FOLDER: unpack the source of PACKAGE as its authors published it, the file of the name TARBALL (a
# pattern), without Debian's patches. apt has checked its signature and hash. Fails if it cannot be had.
fetch_source() {
    local tarball log="$WORK/source.log"
    # Not every mirror has the patches and what describes them; whether the tarball came is what matters.
    (cd "$WORK/debs" && private apt-get source -qq --download-only --only-source "$1") >"$log" 2>&1 || true
    tarball=$(find "$WORK/debs" -name "$2" | head -n 1)
    if [ -z "$tarball" ]; then
        cat "$log" >&2
        return 1
    fi
    mkdir -p "$3"
    tar --extract --file "$tarball" --directory "$3" --strip-components 1
}

# go_environment GO GOPATH: what the builds here have in common; whatever the caller has set for Go programs of their own
# must not reach them.
go_environment() {
    export GOROOT="${1%/bin/go}" GOPATH=$2 GOCACHE="$WORK/go-cache" GOENV=off GOFLAGS='' GOTOOLCHAIN=local
    export GO111MODULE=off CGO_ENABLED=0
}
