# Starts containerd on a node: `sh -eu containerd.sh`, in the node's namespaces.
#
# Everything it has is below /run, which is the node's own, so that nothing of it reaches the machine's disk or meets
# a containerd of the machine's.
home=/run/runtime

# ctr takes the CNI configuration from /etc/cni/net.d and the plugins from /opt/cni/bin, and cannot be told otherwise.
# The node's own are put there, in layers that only the node sees.
for folder in etc opt; do
    mkdir -p "$home/$folder/upper" "$home/$folder/work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$home/$folder/upper,workdir=$home/$folder/work" overlay "/$folder"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
mount --bind "$WARREN_CNI_CONF_DIR" /etc/cni/net.d
mount --bind "$WARREN_CNI_BIN_DIR" /opt/cni/bin

# A node has a /sys of its own, in which no control groups are mounted yet. A line of /proc/self/cgroup is
# "number:controllers:path"; where no line names controllers there is only version 2.
if [ -z "$(cut -d : -f 2 /proc/self/cgroup | tr -d '\n')" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs tmpfs /sys/fs/cgroup
    cut -d : -f 2 /proc/self/cgroup | while read -r controllers; do
        [ -n "$controllers" ] || continue
        mkdir "/sys/fs/cgroup/${controllers#name=}"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/${controllers#name=}"
    done
fi

# The Kubernetes interface is not used here: ctr is a client of containerd's own.
cat >"$home/config.toml" <<CONF
version = 2
root = "$home/root"
state = "$home/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$home/containerd.sock"
CONF
setsid containerd --config "$home/config.toml" >"$home/log" 2>&1 </dev/null &
