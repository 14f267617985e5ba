# A directory on a host, and the files in it: run by `sh -c`, the files as tar on stdin. It may be there already, as ours.
# Arguments: workdir, name, kilobytes that are needed, 1 if Python is needed.
umask 077
workdir=$1 dir=$1/$2 need=$3 python=$4
say() { echo "$1" >&2; exit "$2"; }
echo "system $(uname -sm 2>/dev/null)"
if [ "$python" = 1 ]; then
    version=$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))') \
        || say "Python 3.11 or newer is needed as python3, and there is ${version:-none}" 81
    echo "python $version"
fi
mkdir -p "$workdir" || say "the directory $workdir cannot be made" 82
[ -O "$workdir" ] || [ -n "$(find "$workdir" -prune -user root 2>/dev/null)" ] \
    || say "the directory $workdir belongs to somebody else: set another workdir" 82
free=$(df -Pk "$workdir" 2>/dev/null | awk 'NR == 2 { print $4 }')
[ "${free:-$need}" -ge "$need" ] || say "$free kB are free in $workdir, $need kB are needed" 83
mkdir "$dir" 2>/dev/null || { [ -O "$dir" ] && [ ! -L "$dir" ]; } || say "the directory $dir cannot be made" 82
cd "$dir" && tar -xf - || say "the files of the flow did not arrive whole" 84
echo ready
