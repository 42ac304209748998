#!/usr/bin/env bash
# Runs suites on a stock distribution kernel, which has kernel WireGuard and IPIP, in a virtual machine:
# hack/vm.sh [--whole] [SUITE...]
#
#   --whole  all of the suites that the lab has too, and not only what depends on the kernel: 22 minutes on two cores, emulated
#
# The suites stand in tests/vm/suites, those of --whole in tests/vm/whole; without a name, all of them run. The kernel is Debian's linux-image-cloud-amd64,
# fetched by apt into the cache and not installed. The machine boots from an initramfs that holds the test programs and
# this machine's own tools, has neither disk nor network, and leaves nothing behind. Root is needed only to install
# QEMU where it is missing. Where KVM does not work, QEMU emulates the processors, which takes ten times as long.
#
#   WARREN_VM_ACCELERATOR  kvm or tcg, instead of finding out
#   WARREN_VM_LIMIT        after so many seconds the machine is ended (900; with --whole 3600)
#
# What the machine says goes to stdout. The exit status is 0 if every suite passed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/lib.sh
. hack/lib.sh
# shellcheck source=hack/private-apt.sh
. hack/private-apt.sh

MEMORY=3G
PROCESSORS=2
# A meta-package: it depends on the newest kernel that is meant for virtual machines.
KERNEL=linux-image-cloud-amd64
CACHE="${WARREN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren}/vm"
# Page tables of five levels, which emulation would have to walk, are left out.
MACHINE=(-nodefaults -no-user-config -display none -no-reboot -cpu "max,la57=off" -kernel "$CACHE/kernel/vmlinuz")
# By itself the kernel does not trust an emulated time stamp counter, and every look at the clock is then a system call. Nobody
# attacks it, so it need not defend itself.
COMMAND_LINE='console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on'
# What the suites and the programs call.
TOOLS=(awk bash cat chmod cp cut date dirname env find grep head hostname id ip kill ln ls mkdir mktemp modprobe mount mv nft nproc
    pgrep ping ps readlink rm sed seq sh sleep sort stat sync sysctl tail timeout touch tr true umount uname unshare wc wg)
# Which of the kernel's modules go along.
MODULES=(net drivers/net crypto lib arch/x86/crypto)

main() {
    [ "$(uname -m)" = x86_64 ] || die "the virtual machine is an x86_64 one"
    local suites list=tests/vm/suites
    LIMIT=${WARREN_VM_LIMIT:-900}
    if [ "${1:-}" = --whole ]; then
        list=tests/vm/whole LIMIT=${WARREN_VM_LIMIT:-3600}
        shift
    fi
    suites=$(chosen "$list" "$@")
    ensure_debs qemu-system-x86_64=qemu-system-x86 depmod=kmod cpio strip=binutils
    mkdir -p "$CACHE"
    CACHE=$(cd "$CACHE" && pwd)
    own_folder
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    kernel
    programs "$suites"
    image "$suites"
    boot
}

# chosen LIST NAME...: the lines of these suites; of all, without a name.
chosen() {
    local name all
    all=$(sed '/^#/d; /^$/d' "$1")
    shift
    [ $# -gt 0 ] || printf '%s\n' "$all"
    for name in "$@"; do
        grep "^$name " <<<"$all" || die "no suite '$name': $(cut -d ' ' -f 1 <<<"$all" | paste -s -d ' ')"
    done
}

# Sets WORK. Who holds the lock in such a folder is alive; others were killed, and their folders go.
own_folder() {
    local folder
    for folder in "$CACHE"/run.*; do
        [ ! -d "$folder" ] || flock --nonblock "$folder" rm -rf "$folder" || true
    done
    WORK=$(mktemp -d "$CACHE/run.XXXXXX")
    exec 8<"$WORK"
    flock 8
}

leave() {
    [ -z "${QEMU:-}" ] || kill "$QEMU" 2>/dev/null || true
    rm -rf "$WORK"
}

# Kernel and modules are in $CACHE/kernel afterwards. Once they are there, the network is not asked again.
kernel() {
    exec 9>"$CACHE/lock"
    flock --nonblock 9 || { say "waiting for another run to fetch the kernel" && flock 9; }
    # Who waited finds it done.
    if [ ! -f "$CACHE/kernel/vmlinuz" ]; then
        have apt-get || die "this is not a Debian system: put a kernel with WireGuard into $CACHE/kernel yourself," \
            "as vmlinuz and lib/modules/VERSION"
        say "fetching $KERNEL"
        local package
        private_apt machine_sources
        package=$(private apt-cache depends "$KERNEL" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
        fetch_deb "${package:-$KERNEL}" || die "could not download the kernel: 'apt-get download $KERNEL' must work"
        mkdir -p "$WORK/kernel/lib"
        mv "$WORK/root/lib/modules" "$WORK/kernel/lib/modules"
        mv "$WORK"/root/boot/vmlinuz-* "$WORK/kernel/vmlinuz"
        rm -rf "$CACHE/kernel" "$WORK/root"
        mv -T "$WORK/kernel" "$CACHE/kernel"
    fi
    exec 9>&-
}

# The machine's own.
machine_sources() {
    local list parts
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    # Any of them may be absent.
    cp "$list" "$1/machine.list" 2>/dev/null || true
    cp "$parts"/*.list "$1/" 2>/dev/null || true
    cp "$parts"/*.sources "$1/" 2>/dev/null || true
}

# programs SUITES: builds what they need. Sets TARGET, the folder, and TESTS: where each test program is.
programs() {
    local name test rest path log=$WORK/build.log wanted=()
    TARGET=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    while read -r name test rest; do
        wanted+=(--test "$test")
    done <<<"$1"
    say "building the programs"
    cargo build --locked --quiet --workspace --bins
    cargo test --locked --quiet --workspace --no-run --message-format json "${wanted[@]}" >"$log"
    declare -gA TESTS=()
    while read -r name test rest; do
        path=$(sed -nE '/"kind":\["test"\]/s/.*"name":"'"$test"'".*"executable":"([^"]*)".*/\1/p' "$log")
        [ -x "$path" ] || die "'$test' is not the name of one test program of the workspace: $path"
        TESTS[$test]=$path
    done <<<"$1"
}

# image SUITES: the initramfs, $WORK/image.
image() {
    local folder program name test arguments
    ROOT=$WORK/root
    mkdir -p "$ROOT"/{dev,proc,sys,run,tmp,root,etc,var,usr}
    for folder in bin sbin lib lib64; do
        mkdir "$ROOT/usr/$folder"
        ln -s "usr/$folder" "$ROOT/$folder"
    done
    ln -s ../run "$ROOT/var/run"
    for program in "${TOOLS[@]}"; do
        # The program, where this shell has one built in.
        put "$(type -P "$program" || die "there is no '$program' on PATH: hack/setup.sh test")"
    done
    # Tests look for programs and manifests where these were when they were compiled.
    for program in warren warren-agent warren-cni warren-lab warren-wg; do
        put "$TARGET/debug/$program"
    done
    # The tests' way to the manifests leads up from their package.
    mkdir -p "$ROOT$PWD/tests/lab"
    cp -r manifests "$ROOT$PWD/"
    while read -r name test arguments; do
        put "${TESTS[$test]}"
        printf '%s %s %s\n' "$name" "${TESTS[$test]}" "$arguments" >>"$ROOT/suites"
    done <<<"$1"
    modules
    install --mode 0755 tests/vm/init.sh "$ROOT/init"
    (cd "$ROOT" && find . | cpio --quiet --create --format newc --owner 0:0) >"$WORK/image"
    rm -rf "$ROOT"
}

# put PROGRAM: it and its libraries, where they are here.
put() {
    local file
    for file in "$1" $({ ldd "$1" 2>/dev/null || true; } | grep -o '/[^ ]*'); do
        [ ! -e "$ROOT$file" ] || continue
        mkdir -p "$ROOT$(dirname "$file")"
        # What is for debuggers is most of a debug build.
        case "$file" in
        "$TARGET"/*) strip -o "$ROOT$file" "$file" ;;
        *) cp --dereference "$file" "$ROOT$file" ;;
        esac
    done
}

modules() {
    local from version to folder
    from=$(echo "$CACHE"/kernel/lib/modules/*)
    version=${from##*/}
    to=$ROOT/usr/lib/modules/$version
    for folder in "${MODULES[@]}"; do
        mkdir -p "$to/kernel/$folder"
        cp -r "$from/kernel/$folder/." "$to/kernel/$folder/"
    done
    cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
    depmod --basedir "$ROOT" "$version"
}

boot() {
    local accelerator verdict command_line=$COMMAND_LINE started=$SECONDS
    accelerator=${WARREN_VM_ACCELERATOR:-$(find_accelerator)}
    [ "$accelerator" = kvm ] || command_line+=$(counter_rate)
    say "booting ($accelerator, an image of $(du -h "$WORK/image" | cut -f 1))"
    # Its first serial port is the console, the second says how it ended.
    timeout --foreground --kill-after 5 "$LIMIT" "$(type -P qemu-system-x86_64)" "${MACHINE[@]}" \
        -accel "$accelerator" -m "$MEMORY" -smp "$PROCESSORS" -initrd "$WORK/image" \
        -append "$command_line" \
        -serial stdio -serial "file:$WORK/verdict" </dev/null > >(sed --unbuffered 's/\r$//') &
    QEMU=$!
    wait "$QEMU" || say "QEMU ended with status $?"
    QEMU=
    verdict=$(tr -d '\r' <"$WORK/verdict")
    [ "$verdict" = passed ] || die "${verdict:-no verdict: the machine hung or crashed, or took more than $LIMIT s}"
    say "virtual machine: passed, $((SECONDS - started)) s"
}

# An emulated time stamp counter goes as fast as this machine's own. The kernel would measure how fast, and where this machine is
# busy just then its clock goes several times too fast from then on. Where this machine is a virtual one, its rate is told.
counter_rate() {
    ! grep -q '^flags.* hypervisor' /proc/cpuinfo ||
        awk '/^cpu MHz/ { printf " tsc_early_khz=%d", $4 * 1000; exit }' /proc/cpuinfo
}

# KVM may be there and not work, as inside a virtual machine. The kernel alone boots in a second or two, finds no root and ends.
find_accelerator() {
    if [ -w /dev/kvm ] && timeout --kill-after 1 6 qemu-system-x86_64 "${MACHINE[@]}" -accel kvm -m 512M \
        -append 'quiet panic=-1' >/dev/null 2>&1 </dev/null; then
        echo kvm
    else
        echo tcg,thread=multi
    fi
}

main "$@"
