# What runs on a machine that is reached over SSH: POSIX sh, nothing else is needed there. It comes through standard
# input, is evaluated by `sh`, and is followed by calls that `app.ssh.far_side` writes. Every name of it begins with M_.
# To start a program costs ten times what a fork does: where the shell can do it, the shell does.
#
#   $M_base/lease           a line that changes as long as somebody of ours is connected
#   $M_base/jobs/<job id>/  made by one mkdir, which is the claim: who made it may start the job, nobody else ever may
#     _owner, _main         who answers for the job: pid, start time, boot, digest; the pid of the script
#     _verdict              why it ends; the first who writes it has decided
#     _code, _killing       its main process has ended; the grace is over
#     _out, _err            what it wrote, the first bytes; *.tail and *.count are of what came after those
#     _exit                 how it ended, in one line that ends with `ok`
umask 077
trap '' PIPE HUP
M_asked=
M_seconds=-
# What the script said on standard error follows a mark there; nothing else of ours goes there.
exec 4>&2 2>/dev/null

if [ -n "${KSH_VERSION:-}" ] && ! (command -v printf | grep -v / >/dev/null); then
    M_put() { print -nr -- "$1"; }
else
    M_put() { printf '%s' "$1"; }
fi

# Waits a moment; where sleep takes whole seconds only, a second.
M_nap() { sleep "$1" 2>/dev/null || sleep 1; }

# Who the process $1 is, so that another one with its number later is not taken for it.
M_identify() {
    M_boot=- M_began=-
    { read -r M_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    { read -r M_line <"/proc/$1/stat"; } 2>/dev/null || return 0
    M_line=${M_line##*\) }
    set -- $M_line
    shift 19
    M_began=$1
}

M_uptime() {
    M_seconds=-
    { read -r M_seconds M_line </proc/uptime; } 2>/dev/null || M_seconds=-
}

# Decides that the job ends as $1, unless that is decided already.
M_decide() {
    set -C
    { echo "$1" >_verdict; } 2>/dev/null
    M_done=$?
    set +C
    return $M_done
}

# Has anybody decided? A file without a word is a disk without room, unless its word is just being written.
M_decided() { [ -s _verdict ] || { M_nap 0.1 && [ -s _verdict ]; }; }

# Decides it for who then has to end the script. Where no word can be left for him it is killed at once.
M_end() { M_decide "$1" || M_decided || M_sweep; }

# The program $1 by PATH: M_program. 1: there is none, 2: it may not be executed.
M_find() {
    case $1 in
    */*)
        M_program=$1
        if [ -f "$1" ] && [ -x "$1" ]; then return 0; fi
        [ -e "$1" ] && return 2
        return 1
        ;;
    esac
    M_rest=$PATH: M_why=1
    while [ -n "$M_rest" ]; do
        M_program=${M_rest%%:*}
        M_program=${M_program:-.}/$1
        M_rest=${M_rest#*:}
        if [ -f "$M_program" ] && [ -x "$M_program" ]; then return 0; fi
        [ -e "$M_program" ] && M_why=2
    done
    return $M_why
}

# Said by what is to become the script, and cannot: $1 is why, $2 its exit code.
M_refuse() {
    echo "$1 $2" >"$M_job/_refused"
    exit 0
}

# Becomes the program "$@" in a session of its own.
M_become() {
    trap - PIPE HUP USR1
    if [ -n "$M_setsid" ]; then
        set -- "$M_setsid" "$@"
    elif [ -n "$M_perl" ]; then
        set -- "$M_perl" -e 'use POSIX; POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 126' "$@"
    fi
    trap 'echo "not_executable 126" >"$M_job/_refused"' EXIT
    exec "$@"
}

# Moves the stream at descriptor 3 into the file $1: the first bytes as they come, of the rest the end and the length.
M_pump() {
    M_cut=
    trap 'M_cut=1; kill $M_mover 2>/dev/null' TERM
    exec 3<"$1.pipe"
    while :; do
        dd bs=65536 count=64 <&3 >>"$1" 2>"$1.moved" &
        M_mover=$!
        wait $M_mover
        if [ -n "$M_cut" ]; then return; fi
        # Before the line that counts there may be a warning about reads that were short.
        while M_line= && read -r M_line; do
            M_line=${M_line%% *}
            case $M_line in [0-9]*+[0-9]*) break ;; esac
        done <"$1.moved"
        if [ -z "$M_line" ]; then break; fi
        if [ $((${M_line%+*} + ${M_line#*+})) -lt 64 ]; then return; fi
        M_size=$(wc -c <"$1")
        if [ "$M_size" -ge "$M_limit" ]; then break; fi
    done
    mkfifo "$1.a" "$1.b" || return
    tail -c "$M_tail" <"$1.a" >"$1.tail" &
    M_one=$!
    wc -c <"$1.b" >"$1.count" &
    M_two=$!
    tee "$1.a" <&3 >"$1.b" 2>/dev/null &
    M_mover=$!
    if [ -n "$M_cut" ]; then kill $M_mover; fi
    wait $M_mover
    wait $M_mover $M_one
    wait $M_two
}

# The live processes that carry the job's cookie: M_found. Members of the group $1 are left out.
M_bearers() {
    M_found=
    for M_file in $(grep -lsF "MUSTER_COOKIE=$M_id" /proc/[0-9]*/environ 2>/dev/null); do
        # The cookie of another job may begin like ours.
        tr '\0' '\n' <"$M_file" 2>/dev/null | grep -qxF "MUSTER_COOKIE=$M_id" || continue
        M_file=${M_file#/proc/}
        M_file=${M_file%/environ}
        { read -r M_line <"/proc/$M_file/stat"; } 2>/dev/null || continue
        M_line=${M_line##*\) }
        case $M_line in Z* | X*) continue ;; esac
        M_line=${M_line#* * }
        if [ "${M_line%% *}" != "$1" ]; then M_found="$M_found $M_file"; fi
    done
}

# Kills what is left of the job, and looks again until nothing is: M_left processes could not be killed.
M_sweep() {
    M_rounds=0
    while :; do
        kill -s KILL -- "-$M_script" 2>/dev/null
        M_bearers 0
        M_left=0
        for M_pid in $M_found; do
            M_left=$((M_left + 1))
            kill -s KILL "$M_pid" 2>/dev/null
        done
        M_rounds=$((M_rounds + 1))
        if [ $M_left -eq 0 ] || [ $M_rounds -ge 100 ]; then return; fi
        M_nap 0.05
    done
}

# Ends the job as was decided: TERM to all of it, its grace, KILL. Waits for all of that.
M_finish() {
    : >_ending
    kill -s TERM -- "-$M_script" 2>/dev/null || kill -s TERM "$M_script" 2>/dev/null
    kill -s CONT -- "-$M_script" 2>/dev/null
    M_bearers "$M_script"
    for M_pid in $M_found; do kill -s TERM "$M_pid" 2>/dev/null; done
    M_killer >/dev/null 2>&1 4>&- &
    M_timer=$!
    until M_reap; do :; done
    echo "$M_code" >_code
    until [ -e _killing ]; do
        M_bearers 0
        if [ -z "$M_found" ] && ! kill -s 0 -- "-$M_script" 2>/dev/null; then break; fi
        M_nap 0.1
    done
    kill "$M_timer" 2>/dev/null
    M_sweep
}

M_killer() {
    sleep "$M_grace" &
    M_pid=$!
    trap 'kill $M_pid 2>/dev/null; exit 0' TERM
    wait $M_pid
    : >_killing
    kill -s KILL -- "-$M_script" || kill -s KILL "$M_script"
    # Nobody sees where there is no room for that file.
    if ! [ -e _killing ]; then M_sweep; fi
}

# Waits for the script; M_code. Fails where a signal to us came first.
M_reap() {
    if [ -n "$M_asked" ]; then
        M_asked=
        return 1
    fi
    wait "$M_script"
    M_status=$?
    # A status that came together with a signal is told once only.
    if [ $M_status -ne 127 ] || [ -z "$M_code" ]; then M_code=$M_status; fi
    if [ -n "$M_asked" ] && kill -s 0 "$M_script" 2>/dev/null; then
        M_asked=
        M_code=
        return 1
    fi
    return 0
}

# Beside the script, a look every $M_tick seconds: its timeout, the leash, and that what answers for it lives.
M_watch() {
    trap 'kill $M_pid 2>/dev/null; exit 0' TERM
    M_ticks=0 M_idle=0 M_drained=0 M_seen=
    while :; do
        M_for=$M_tick
        if [ "$M_ticks" = "$M_full" ]; then M_for=$M_over; fi
        M_nap "$M_for" &
        M_pid=$!
        wait $M_pid
        if ! kill -s 0 $$ 2>/dev/null; then
            if ! [ -s _exit ] && { M_decide interrupted || ! M_decided; }; then
                M_sweep
                M_write interrupted -
            fi
            exit 0
        fi
        if [ -e _code ]; then
            # Something in the background holds the output open: it is not waited for.
            M_drained=$((M_drained + 1))
            if [ $M_drained -ge "$M_drain" ]; then kill $M_pumps 2>/dev/null; fi
            continue
        fi
        if [ "$M_ticks" = "$M_full" ]; then M_end timed_out; fi
        M_ticks=$((M_ticks + 1))
        M_now=
        { read -r M_now <"$M_base/lease"; } 2>/dev/null
        M_idle=$((M_idle + 1))
        if [ "$M_now" != "$M_seen" ]; then M_seen=$M_now M_idle=0; fi
        if [ $M_idle -ge "$M_leash" ]; then M_end lost; fi
        if [ -s _verdict ] && ! [ -e _ending ]; then kill -s USR1 $$; fi
    done
}

# Writes how the job ended: verdict $1, exit code $2.
M_write() {
    M_uptime
    M_line="ended $1 $2 ${M_left:-0} ${M_since:--} $M_seconds"
    for M_stream in _out _err; do
        M_count=-
        if [ -s $M_stream.count ]; then read -r M_count <$M_stream.count; fi
        M_line="$M_line $M_count"
    done
    # In one piece, or not at all where there is no room: who reads it looks for its last word.
    { echo "$M_line ok" >_exit; } 2>/dev/null
    if [ -n "$M_secret" ]; then rm -f input.json; fi
}

# Has it ended? M_line says how.
M_ended() {
    M_line=
    { read -r M_line <_exit; } 2>/dev/null
    case $M_line in *' ok') M_line=${M_line% ok} ;; *) return 1 ;; esac
}

# Says how it ended, and what it wrote into the file of MUSTER_OUTPUT: `none`, `bad WHY`, or its size and its bytes.
M_say() {
    echo "$M_line ok"
    if [ -L output.json ]; then
        echo 'output bad link'
    elif ! [ -e output.json ]; then
        echo 'output none'
    elif ! [ -f output.json ]; then
        echo 'output bad kind'
    elif ! [ -s output.json ]; then
        echo 'output none'
    else
        M_size=$(wc -c <output.json)
        M_size=$((M_size))
        if [ "$M_size" -gt "$M_output" ]; then
            echo "output bad size $M_size"
        else
            if head -c "$M_output" output.json >_given; then
                M_size=$(wc -c <_given)
                echo "output $((M_size))"
                cat _given
            else
                echo 'output bad copy'
            fi
            rm -f _given
        fi
    fi
}

# Says what it wrote, where that is short: who follows the output meanwhile asks for the rest, as of what is long.
M_show() {
    if [ -e _live ] || [ -e _out.count ] || [ -e _err.count ]; then return; fi
    echo data
    if [ -s _err ]; then
        echo "$M_mark" >&4
        cat _err >&4
    fi
    if [ -s _out ]; then cat _out; fi
}

# Starts the job, or attaches to it where it was started before. Its files are written by M_prepare, M_launch becomes it.
M_start() {
    if ! mkdir "$M_job" "$M_job/work" 2>/dev/null; then
        if [ -d "$M_job" ]; then
            M_attach
            return
        fi
        mkdir -p "$M_base/jobs" 2>/dev/null
        if ! M_why=$(mkdir "$M_job" "$M_job/work" 2>&1); then
            echo "failed claim $M_why"
            return
        fi
    fi
    cd "$M_job" || return
    trap 'M_asked=1' USR1
    M_identify $$
    if ! { echo "$$ $M_began $M_boot $M_digest" >_owner && : >_out && : >_err && M_prepare; } ||
        ! mkfifo _out.pipe _err.pipe; then
        M_line='ended no_space - 0 - - - -'
        echo "$M_line ok" >_exit
        echo "$M_line ok"
        echo 'output none'
        return
    fi
    M_setsid= M_perl=
    if M_find setsid; then M_setsid=$M_program; elif M_find perl; then M_perl=$M_program; else set -m; fi
    M_pump _out >/dev/null 2>&1 4>&- &
    M_pumps=$!
    M_pump _err >/dev/null 2>&1 4>&- &
    M_pumps="$M_pumps $!"
    M_uptime
    M_since=$M_seconds
    if [ -n "$M_fed" ]; then
        M_feed 2>/dev/null 4>&- | M_launch >_out.pipe 2>_err.pipe 4>&- &
        M_script=$!
    else
        M_launch </dev/null >_out.pipe 2>_err.pipe 4>&- &
        M_script=$!
    fi
    set +m
    M_watch >/dev/null 2>&1 4>&- &
    M_watcher=$!
    echo "$M_script" >_main
    echo "started $M_script"
    M_code= M_left=0
    while :; do
        if M_reap && { M_decide exit || ! M_decided; }; then
            M_verdict=exit
            echo "$M_code" >_code
            break
        fi
        if { read -r M_verdict <_verdict; } 2>/dev/null; then
            M_finish
            break
        fi
    done
    # A signal may come late, and ends a wait.
    while :; do
        M_asked=
        wait $M_pumps
        if [ -z "$M_asked" ]; then break; fi
    done
    kill $M_watcher 2>/dev/null
    if [ -e _refused ]; then read -r M_verdict M_code <_refused; fi
    M_write "$M_verdict" "$M_code"
    M_say
    M_show
}

# Waits for the end of a job that was started before, and says it.
M_attach() {
    if ! cd "$M_job" 2>/dev/null; then
        echo 'failed absent'
        return
    fi
    M_naps=0
    until [ -s _owner ]; do
        M_naps=$((M_naps + 1))
        if [ $M_naps -gt 30 ]; then break; fi
        M_nap 0.1
    done
    M_owner= M_of=
    { read -r M_owner M_start M_on M_of <_owner; } 2>/dev/null
    if [ -n "$M_of" ] && [ "$M_of" != "$M_digest" ]; then
        echo 'failed other_digest'
        return
    fi
    M_script=0
    { read -r M_script <_main; } 2>/dev/null
    echo "attached ${M_script:-0}"
    M_naps=0
    until M_ended; do
        if ! [ -d "$M_job" ]; then
            echo 'failed absent'
            return
        fi
        M_identify "${M_owner:-0}"
        if [ -z "$M_owner" ] || [ "$M_began $M_boot" != "$M_start $M_on" ] || ! kill -s 0 "$M_owner" 2>/dev/null; then
            M_abandoned
            break
        fi
        M_naps=$((M_naps + 1))
        if [ $M_naps -lt 20 ]; then M_nap 0.1; else sleep 1; fi
    done
    M_say
}

# Nobody answers for the job any more: what is left of it is ended.
M_abandoned() {
    # It may have come to its end between two looks, or its watcher is at it.
    M_nap 0.3
    if M_ended; then return; fi
    if ! M_decide interrupted && [ "$M_on" = "$M_boot" ]; then
        M_naps=0
        until M_ended || [ $M_naps -gt 15 ]; do
            M_naps=$((M_naps + 1))
            sleep 1
        done
        if M_ended; then return; fi
    fi
    # The number of its group may be another's by now: its cookie is not.
    M_script=2147483647
    M_sweep
    M_write interrupted -
}

# Ends the job, or sees to it that it never starts.
M_cancel() {
    mkdir -p "$M_base/jobs"
    if mkdir "$M_job" 2>/dev/null; then
        cd "$M_job" || return
        M_decide cancelled
        M_left=0
        M_write cancelled -
        echo remembered
        return
    fi
    cd "$M_job" || return
    if [ -s _exit ] || [ -e _code ]; then
        echo ended
        return
    fi
    M_owner= M_script=
    { read -r M_owner M_start M_on M_of <_owner; } 2>/dev/null
    M_identify "${M_owner:-0}"
    if [ -n "$M_owner" ] && [ "$M_began $M_boot" = "$M_start $M_on" ]; then
        { read -r M_script <_main; } 2>/dev/null
    else
        M_owner=
    fi
    # The number of a group may be another's by now, where nobody answers for the job.
    : "${M_script:=2147483647}"
    M_end cancelled
    if [ -n "$M_owner" ]; then kill -s USR1 "$M_owner"; fi
    echo ending
}

# The output from the bytes $1 and $2 on, counted from 1.
M_rest() {
    cd "$M_job" || return
    echo data
    echo "$M_mark" >&4
    # Who answered for the job may have died before there was anything to write into.
    if [ -e _err ]; then tail -c "+$2" _err >&4; fi
    if [ -e _out ]; then tail -c "+$1" _out; fi
}

# The last bytes of what was cut.
M_ends() {
    cd "$M_job" || return
    echo data
    echo "$M_mark" >&4
    if [ -s _err.tail ]; then cat _err.tail >&4; fi
    if [ -s _out.tail ]; then cat _out.tail; fi
}

# What has to be known before the first job, and the place where everything is kept, which must be ours alone. Starts no
# process where that place is there.
M_greet() {
    if ! [ -d "$M_base/jobs" ] && ! M_why=$(mkdir -p "$M_base/jobs" 2>&1); then
        echo "failed base $M_why"
        return
    fi
    if [ -L "$M_base" ] || ! [ -O "$M_base" ]; then
        echo "failed base $M_base belongs to somebody else"
        return
    fi
    echo "base $M_base"
    for M_name in "$@"; do
        if M_find "$M_name"; then echo "program $M_name"; fi
    done
    echo variables
    export -p
    echo 'variables end'
}

# What this machine is.
M_look() {
    chmod 700 "$M_base"
    echo "system $(uname -sm)"
    echo "free $(df -Pk "$M_base" | tail -n 1)"
    if M_find python3; then echo "python $("$M_program" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"; fi
    echo 'look end'
}
