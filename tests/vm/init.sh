#!/bin/bash
# The first process of the virtual machine that hack/vm.sh boots: sets the system up, runs the suites one after the
# other, and tells the host by the second serial port how it went.
#
# Each line of /suites is: NAME PROGRAM ARGUMENT...
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# A test that is skipped here is a failure: what it needs is what this machine is for.
export WARREN_REQUIRE=all
# For suites that fill a machine, which are to fill an emulated one and no more.
export WARREN_EMULATED=1

# The end is the host's to judge: whatever ends this script, the machine is off afterwards.
trap 'echo b >/proc/sysrq-trigger' EXIT

main() {
    set_up || tell 'the machine could not be set up' || return
    say "Linux $(uname -r), $(nproc) processors, up after $(cut -d ' ' -f 1 /proc/uptime) s"
    local name command failed=()
    while read -r name command; do
        suite "$name" "$command" || failed+=("$name")
    done </suites
    [ ${#failed[@]} -eq 0 ] || tell "failed: ${failed[*]}" || return
    tell passed
}

set_up() {
    mount -t proc proc /proc &&
        mount -t sysfs sysfs /sys &&
        mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
        mount -t devtmpfs devtmpfs /dev &&
        mount -t tmpfs tmpfs /run &&
        ln -s /proc/self/fd /dev/fd &&
        # What a distribution loads for a container runtime. The rest is loaded as it is needed.
        modprobe -a tun bridge &&
        ip link set lo up
}

# suite NAME COMMAND: run one suite and say how long it took.
suite() {
    local started=$SECONDS
    say "$1"
    # The words of a line are arguments as they stand.
    # shellcheck disable=SC2086
    if $2 --test-threads=1 --nocapture </dev/null; then
        say "$1: ok, $((SECONDS - started)) s"
    else
        say "$1: FAILED (status $?), $((SECONDS - started)) s"
        return 1
    fi
}

say() { printf '==> vm: %s\n' "$*"; }

# tell TEXT: what the host is to know. Fails, for who ends with it.
tell() {
    printf '%s\n' "$*" >/dev/ttyS1
    return 1
}

main 2>&1
