# Sends to each address, for as long as a file is there: datagrams, each from a socket of its own so that each is routed
# anew, and echo requests. Counts the rounds in another file.
#
# usage: traffic.sh WHILE COUNT ADDRESS...
go=$1 count=$2
shift 2

# Reading from it is a pause that takes no process.
exec 9<> <(:)

for address; do
    while [ -e "$go" ]; do
        ping -n -q -i 0.05 -c 20 -W 1 "$address" > /dev/null 2>&1 || read -rt 0.1 -u 9
    done &
done
rounds=0
while [ -e "$go" ]; do
    for address; do
        # Refused, unreachable, not permitted: that is what the test is about.
        { printf round-%d "$rounds" > "/dev/udp/$address/7"; } 2> /dev/null
    done
    rounds=$((rounds + 1))
    echo "$rounds" > "$count"
    read -rt 0.02 -u 9
done
wait
