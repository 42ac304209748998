# Makes an image without a registry, in the format of `docker save`, and imports it: `sh -eu image.sh NAME`.
# It holds a few of the machine's programs and the libraries that these need.
name=$1
work=/run/runtime/image
mkdir -p "$work/root"
for program in ip ping sleep; do
    path=$(command -v "$program")
    cp --dereference --parents "$path" "$work/root"
    # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", and the loader by its path alone.
    ldd "$path" | grep -o '/[^ ]*' | xargs -I '{}' cp --dereference --parents '{}' "$work/root"
done
tar --create --directory "$work/root" --file "$work/layer.tar" .

case "$(uname -m)" in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac
layer=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
cat >"$work/config.json" <<JSON
{"architecture":"$architecture","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
cat >"$work/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":["$name"],"Layers":["layer.tar"]}]
JSON
tar --create --directory "$work" --file "$work/image.tar" manifest.json config.json layer.tar
ctr image import "$work/image.tar"
