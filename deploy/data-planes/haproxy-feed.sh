#!/bin/sh
# Tells a running HAProxy what stands in the gateway's sink, each second when it has changed.
# haproxy-feed.sh MAP SOCKET, for example: haproxy-feed.sh /run/tokens/haproxy.map /run/haproxy/feed.sock
# Needs socat. The token goes through a socket, never through an argument.
set -u
map=$1 socket=$2 last=unknown
say() { socat - "UNIX-CONNECT:$socket" >/dev/null; }
while :; do
    now=$(grep -v '^#' "$map")
    if [ "$now" != "$last" ]; then
        if [ -z "$now" ]; then
            printf 'clear map %s\n' "$map" | say
        elif [ -z "$last" ] || [ "$last" = unknown ]; then
            printf 'clear map %s; add map %s %s\n' "$map" "$map" "$now" | say
        else
            printf 'set map %s %s\n' "$map" "$now" | say
        fi && last=$now
    fi
    sleep 1
done
