# One flow in its directory: the command given, ended with its group when its time is over or when stdin is closed, which
# is when nobody waits for it any more. Says in the end how it ended, the end of its stderr, and the result.
# Arguments: directory, seconds (0: no limit), seconds of grace, 1 to clean up, most bytes of the result, command…
trap '' HUP PIPE
dir=$1 seconds=$2 grace=$3 cleanup=$4 most=$5
shift 5
cd "$dir" || exit 86
exec 3<&0
(trap - HUP PIPE; exec $(command -v setsid) "$@") </dev/null >/dev/null 2>.stderr 3<&- &
job=$!

end() {
    echo "$1" >.why
    kill -TERM "$job"
    waited=0
    while kill -0 "$job" && [ "$waited" -lt "$grace" ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "-$job" || kill -KILL "$job"
}

(cat <&3; end given_up) >/dev/null 2>&1 &
leash=$!
timer=
if [ "$seconds" != 0 ]; then
    (trap 'kill $!' TERM; sleep "$seconds" 3<&- & wait $! && end timeout) >/dev/null 2>&1 3<&- &
    timer=$!
fi
wait "$job"
status=$?
kill -KILL "$leash" 2>/dev/null
[ -z "$timer" ] || kill -TERM "$timer" 2>/dev/null

why=$(cat .why 2>/dev/null)
[ -z "$why" ] || kill -KILL "-$job" 2>/dev/null
size=$(wc -c 2>/dev/null <out.json)
size=$((size))
send=$size
[ "$size" -le "$most" ] || send=0
tail -c 8192 .stderr >.said
said=$(wc -c <.said)
echo "muster-flow $status ${why:-over} $((said)) $size $send"
cat .said
[ "$send" = 0 ] || cat out.json
if [ "$cleanup" = 1 ]; then
    cd / && rm -rf "$dir" && echo && echo "muster-flow-cleaned"
fi
