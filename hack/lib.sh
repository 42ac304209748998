# shellcheck shell=bash
# Shell functions shared by the scripts in this folder: sourced, never run.
# Progress goes to stderr, so that a script's stdout is its result and nothing else.

# Commands of the system administrator's folders (ip, nft, wg) are needed by people too; Debian leaves those
# folders out of a user's PATH. A fresh toolchain is in ~/.cargo/bin before any shell profile says so.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"
# Where unpack_debs puts what must not be installed.
UNPACKED="${WARREN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren}/unpacked"
PATH="$PATH:$UNPACKED/usr/bin:$UNPACKED/usr/sbin"
export PATH

# say TEXT...: one line of progress.
say() { printf '==> %s\n' "$*" >&2; }

# die TEXT...: say what went wrong and what to do about it, and end the script.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# have COMMAND: is it on PATH?
have() { command -v "$1" >/dev/null 2>&1; }

# at_least VERSION MINIMUM: is VERSION the same or newer?
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# as_root COMMAND...: run it as root: directly, else by sudo, else fail and print the line to run.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root and there is no sudo. Run as root, then start again: $*"
    fi
}

# present NEED: is this there? NEED is a command on PATH, the path of a file, or an installed package.
present() {
    case "$1" in
    /*) [ -e "$1" ] ;;
    *) have "$1" || dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii' ;;
    esac
}

# ensure_debs [NEED=]PACKAGE...: install the Debian packages of which NEED (by default a thing named like the package)
# is not there. What is there is left alone, wherever it came from.
ensure_debs() {
    local item missing=()
    for item in "$@"; do
        present "${item%%=*}" || missing+=("${item#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "this is not a Debian system; install what these packages hold and start again: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    # Package lists are fetched only if a package is unknown here, or if the known version is gone from the mirror.
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 || ! install_debs "${missing[@]}"; then
        as_root apt-get update -qq
        install_debs "${missing[@]}" ||
            die "could not install ${missing[*]}: see apt's message above; 'apt-get install ${missing[*]}' must work"
    fi
}

install_debs() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet=2 --option Dpkg::Use-Pty=0 --no-install-recommends "$@" >&2
}

# unpack_debs [NEED=]PACKAGE...: the same for packages that would start a service and enable it at boot: they are
# unpacked into a folder of the user's instead of installed. What they depend on must be there.
unpack_debs() {
    local item missing=() downloads deb
    for item in "$@"; do
        present "${item%%=*}" || missing+=("${item#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "this is not a Debian system; install what these packages hold and start again: ${missing[*]}"
    say "unpacking Debian packages: ${missing[*]}"
    downloads=$(mktemp -d)
    if ! download_debs "$downloads" "${missing[@]}"; then
        as_root apt-get update -qq
        download_debs "$downloads" "${missing[@]}" ||
            die "could not download ${missing[*]}: see apt's message above; 'apt-get download ${missing[*]}' must work"
    fi
    mkdir -p "$UNPACKED"
    for deb in "$downloads"/*.deb; do
        dpkg-deb --extract "$deb" "$UNPACKED"
    done
    rm -r "$downloads"
}

# download_debs FOLDER PACKAGE... As the user that apt would change to, it could not write into a private folder.
download_debs() { (cd "$1" && apt-get download --quiet=2 --option APT::Sandbox::User=root "${@:2}") >&2; }
