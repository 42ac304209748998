#!/bin/sh
# Stands before warren-cni in CNI_PATH, under its name, and keeps beside itself what the client asked of it last and what it
# answered: a client tells the error's words, but not its code. $WARREN_CNI_BIN_DIR has the plugin itself.
record=${0%/*}
cat >"$record/stdin"
printf '%s %s' "$CNI_COMMAND" "$CNI_CONTAINERID" >"$record/call"
status=0
"$WARREN_CNI_BIN_DIR/warren-cni" <"$record/stdin" >"$record/stdout" || status=$?
cat "$record/stdout"
exit "$status"
