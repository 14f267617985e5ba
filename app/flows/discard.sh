# Removes a flow's own directory. Argument: the directory.
cd / && rm -rf "$1"
