# shellcheck shell=bash
# shellcheck disable=SC2154  # name, dir, log and the like are set by the script that sources this
# What ops/kafka/broker and ops/redis/server share: the state directory, ports, and processes that are known to be ours.
# Sourced from the repository's root.
#
# MYELIN_LOCAL     the state directory (.local); tests run servers of their own beside a developer's by giving another
# MYELIN_DEADLINE  seconds a server may take to answer or to stop (60)
# A server's directory holds: port, pid ("PID STARTTIME"), its configuration, data/ and its log.

local_dir=${MYELIN_LOCAL:-.local}
mkdir -p "$local_dir"
local_dir=$(cd "$local_dir" && pwd)
deadline_s=${MYELIN_DEADLINE:-60}

die() { echo "$*" >&2; exit 1; }

# Field 22 of /proc/PID/stat, counted behind the command's name, which may contain spaces.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a stat <<<"${stat##*) }"
    # Dead, only not yet collected by its parent; while other threads still end (20th field), its ports are still taken.
    [ "${stat[0]}" != Z ] || [ "${stat[17]}" -gt 1 ] || return 1
    echo "${stat[19]}"
}

# our_pid: the pid of the server of $dir, or failure. A pid alone proves nothing, for numbers are used again: the process must
# have been started when we say and must name its directory on its command line.
our_pid() {
    local pid started
    { read -r pid started <"$dir/pid"; } 2>/dev/null || return 1
    [ "$(start_time "$pid")" = "$started" ] || return 1
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$dir" || return 1
    echo "$pid"
}

# launch OUTPUT COMMAND...: in a session of its own, so that neither a closed terminal nor Ctrl-C in a test reaches it, and
# with nothing inherited but its log: a daemon that keeps its caller's pipe or lock open makes the caller hang.
launch() {
    local output=$1 fd
    shift
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if ((fd > 2 && fd != 255)); then eval "exec $fd>&-"; fi
        done
        exec setsid "$@" </dev/null >>"$output" 2>&1
    ) &
    echo "$! $(start_time $!)" >"$dir/pid"
}

# wait_until SECONDS COMMAND...: polls, for a fixed sleep is either too long or too short.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

gone() { [ "$(start_time "$1")" != "$2" ]; }

# stop_pid PID SIGNAL: returns when the process is gone; after the deadline it is killed, and that is said.
stop_pid() {
    local started
    started=$(start_time "$1") || return 0
    kill "-$2" "$1" 2>/dev/null || true
    kill -CONT "$1" 2>/dev/null || true # a process that a test has frozen cannot obey SIGTERM
    wait_until "$deadline_s" gone "$1" "$started" && return 0
    echo "process $1 ignored SIG$2 for $deadline_s s: killed" >&2
    kill -KILL "$1" 2>/dev/null || true
    wait_until 10 gone "$1" "$started"
}

# Ports that somebody listens on, of any address, one a line. /proc needs no package and makes no connection.
listening() {
    awk '$4 == "0A" { n = split($2, a, ":"); print a[n] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        while read -r hex; do echo $((16#$hex)); done
}

# free_port FIRST [NOT]: the first port from FIRST upward that nobody listens on.
free_port() {
    local port=$1 taken
    taken=$(listening)
    while grep -qx "$port" <<<"$taken" || [ "$port" = "${2:-}" ]; do port=$((port + 1)); done
    echo "$port"
}

# addresses PID: where a process listens, "ADDRESS:PORT" each, sorted, on one line.
addresses() {
    local inodes
    inodes=$(find "/proc/$1/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | tr -dc '0-9\n' | sort -u)
    awk -v inodes="$inodes" '
        BEGIN { n = split(inodes, list, "\n"); for (i = 1; i <= n; i++) mine[list[i]] = 1 }
        $4 == "0A" && ($10 in mine) { print $2 }' "/proc/$1/net/tcp" "/proc/$1/net/tcp6" 2>/dev/null |
        while IFS=: read -r hex port; do
            if [ ${#hex} = 8 ]; then
                printf '%d.%d.%d.%d:%d\n' "0x${hex:6:2}" "0x${hex:4:2}" "0x${hex:2:2}" "0x${hex:0:2}" "0x$port"
            else
                printf '[%s]:%d\n' "$hex" "0x$port"
            fi
        done | sort | paste -sd ' '
}

# What everybody sources to find the servers.
write_env() {
    local port brokers='' new=$local_dir/env.$$
    for port in "$local_dir"/kafka/port "$local_dir"/kafka-[2-9]/port; do
        [ ! -e "$port" ] || brokers+=${brokers:+,}127.0.0.1:$(cat "$port")
    done
    {
        [ -z "$brokers" ] || echo "export MYELIN_KAFKA=$brokers"
        [ ! -e "$local_dir/redis/port" ] || echo "export MYELIN_REDIS=127.0.0.1:$(cat "$local_dir/redis/port")"
    } >"$new"
    if [ -s "$new" ]; then mv "$new" "$local_dir/env"; else rm -f "$new" "$local_dir/env"; fi
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# What follows is the life of one server. The script that sources this sets: name, dir, log, default_port, taken (what the
# server says when somebody else has its port) and defines: fetch, configure PORT, run, answers PORT.

port() { cat "$dir/port"; }

# An answer alone proves nothing either: it may come from another server that took the port just before ours.
serves() { # serves PID
    [[ " $(addresses "$1") " == *" 127.0.0.1:$(port) "* ]] && answers "$(port)"
}

up_or_dead() {
    local pid
    pid=$(our_pid) || return 0
    serves "$pid"
}

# What DIR used last time, so that clients find a restarted server again, else the default; the next free one, and a word about
# it, when that is taken.
choose_port() {
    local want port
    want=$(port 2>/dev/null || echo "$default_port")
    port=$(free_port "$want")
    [ "$port" = "$want" ] || echo "$name: port $want is taken by another process, using $port"
    echo "$port" >"$dir/port"
}

start() {
    local attempt pid from=$EPOCHREALTIME
    if pid=$(our_pid); then
        wait_until "$deadline_s" serves "$pid" || die "$name: runs but does not answer; see $log"
        write_env
        echo "$name: runs already on 127.0.0.1:$(port)"
        return
    fi
    fetch
    mkdir -p "$dir/data"
    # Another process may take the port between our look and the server's bind, or use it for a connection of its own.
    for attempt in 1 2 3 4 5; do
        choose_port
        configure "$(port)"
        : >"$dir/start.log"
        echo "$name: starting on 127.0.0.1:$(port)"
        run
        wait_until "$deadline_s" up_or_dead || die "$name: no answer within $deadline_s s; see $log"
        if our_pid >/dev/null; then
            write_env
            echo "$name: ready in $(seconds_since "$from") s"
            return
        fi
        tail -q -n 40 "$log" "$dir/start.log" | grep -qE "$taken" || break
        echo "$name: port $(port) is in use although nobody listens, trying the next"
        echo $(($(port) + 1)) >"$dir/port"
    done
    tail -q -n 5 "$log" "$dir/start.log" >&2
    die "$name: ended while starting (attempt $attempt); see $log"
}

end() { # end SIGNAL
    local pid
    if pid=$(our_pid); then
        stop_pid "$pid" "$1"
        echo "$name: stopped (pid $pid, SIG$1)"
    else
        echo "$name: does not run"
    fi
    rm -f "$dir/pid"
}

wipe() {
    end KILL
    rm -rf "$dir"
    write_env
}

status() {
    local pid memory state=up
    pid=$(our_pid) || { echo "$name  down"; return 3; }
    serves "$pid" || state='does not answer'
    memory=$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || memory=0 # it ended a moment ago
    echo "$name  $state: $(addresses "$pid")"
    echo "       pid $pid, memory $((${memory:-0} / 1024)) MB, data $(du -sm "$dir/data" | cut -f1) MB"
    echo "       log $log"
    [ "$state" = up ] || return 3
}

# serve COMMAND: one change at a time, so that two callers may both say `start`.
serve() {
    case ${1:-} in
    start | stop | kill | wipe)
        mkdir -p "$dir"
        exec 8>"$local_dir/$name.lock"
        flock 8
        ;;
    esac
    case ${1:-} in
    fetch) fetch ;;
    start) start ;;
    stop) end TERM ;;
    kill) end KILL ;;
    wipe) wipe ;;
    pid) our_pid || exit 3 ;;
    status) status ;;
    *) awk 'NR > 1 && !/^#/ { exit } NR > 1 { print substr($0, 3) }' "$0" >&2; exit 64 ;;
    esac
}
