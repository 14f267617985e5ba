"""Programs and variables that an entry must not name unless it says `unsafe: true`.

A program is here if words of its command line, or files and texts that it is given, make it run another
program or code: to allow it is to allow everything. The names are those of GTFOBins (https://gtfobins.github.io)
with the functions shell, command, reverse shell or library load, as of November 2026, with the interpreters and
launchers of the usual distributions. Programs that only read or write files are not here: which files is for
the entry's patterns to say. Nor are `systemctl` and `journalctl`: what they start is a pager, on a terminal,
and a job has none.
"""

from __future__ import annotations

import re

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a name without a slash is looked for."""

_BY_KIND = """
shells: ash bash bash-static busybox csh dash elvish fish ksh loksh mksh nu oksh posh powershell pwsh rbash
    rc sash sh static-sh tcsh toybox xonsh yash zsh
interpreters: awk bc bun clisp cpan dc deno ed elixir emacs emacsclient erl escript expect gawk gcl ghc ghci
    gimp gnuplot go groovy guile iex irb java jjs jrunscript js jshell julia jython kotlin latex latexmk ld
    ld-linux ld-linux-aarch64 ld-linux-x86-64 lua luajit lualatex luatex m4 mawk nawk node nodejs ocaml
    octave original-awk osascript pdflatex pdftex perl php php-cgi phpdbg pry psysh pypy python R racket
    Rscript ruby runhaskell sbcl scala sed slsh swipl tclsh tex troff ts-node wish xelatex xetex
launchers: aa-exec agetty aoss arch-nspawn at atd batch capsh cgexec choom chpst chroot chrt cpulimit daemon
    dbus-launch dbus-run-session distrobox doas dumb-init eatmydata enroot env fakechroot fakeroot firejail
    flock foreman forever honcho ionice linux32 linux64 logsave ltrace machinectl multitime nice nohup
    nsenter numactl parallel perf pexec pkexec pm2 prlimit proot rlwrap run-parts runcon runsv runuser
    screen script setarch setlock setpriv setsid sg softlimit sshpass start-stop-daemon stdbuf strace su
    sudo sudoedit sulogin supervisorctl supervisord sv switch_root systemd-inhibit systemd-nspawn
    systemd-run taskset tcpserver time timeout tini tmate tmux torify torsocks tsocks unbuffer unshare
    valgrind watch wine x-terminal-emulator xargs xdotool xinetd xterm xvfb-run zellij
editors and pagers: bat batcat edit editor elvis ex hexedit hx jed jmacs joe jove less lesspipe lv man mc
    mcedit mg micro more most mutt nano ne neovim nvi nvim pager pg pico ranger rview rvim sensible-browser
    sensible-editor sensible-pager vi view vifm vigr vim vimdiff vimtutor vipw visudo xdg-open zile
files and archives: 7z 7za ar arj borg bsdtar cpio cryptsetup debugfs dmsetup dvips fd fdfind find
    fusermount fzf genisoimage ghostscript gs install locate logrotate losetup mount nnn pandoc pax rar
    rclone restic rsync run-mailcap shuf sort split sqlite sqlite3 tar umount unrar unsquashfs unzip zip
    zipinfo
development: ansible ansible-playbook ansible-test ant autoconf autoheader automake autoreconf bashbug bazel
    bpftool bpftrace bundle bundler byebug c++ cargo cc ccache chef-client clang cmake cobc composer cpp
    cscope ctags distcc dotnet dtrace easy_install eb eslint facter fossil g++ gcc gcore gdb gdbserver gem
    git git-shell gmake gradle hg knife ld lldb make makepkg maven meson msbuild mvn ninja nix nix-shell npm
    npx nsjail opam packer pdb pip pipenv pipx pnpm poetry pre-commit puppet pytest rake rebar rr rustc salt
    salt-call sbt sccache scons stap svn terraform tofu tox uv uvx vagrant virtualenv yarn zig
packages: apk apport-cli apt apt-get aptitude dnf dpkg dpkg-reconfigure emerge eopkg flatpak pacman pkcon
    pkg rpm rpmdb rpmquery rpmverify slackpkg snap tasksel update-alternatives xbps-install yum zypper
network: aria2c bconsole curl dhclient dnsmasq elinks ftp getty ip irssi lftp links lynx mosh mosquitto nc
    nc.openbsd nc.traditional ncat ncftp nmap openssl openvpn plink pppd psftp rexec rlogin rpcclient rsh
    rtorrent scp sftp smbclient snmpd socat socket spamc ssh ssh-add ssh-agent ssh-copy-id ssh-keygen sshfs
    tcpdump telnet tnftp tshark varnishncsa w3m websocat wg-quick wget wireshark
containers and machines: buildah crictl crun ctr docker docker-compose helm k3s kind kubectl lxc lxd
    minikube nerdctl oc podman qemu qemu-img qemu-system-aarch64 qemu-system-x86_64 runc skopeo virsh
databases: cqlsh influx mariadb mongo mongosh mysql mysqldump pg_dump pgcli psql redis-cli sqlcmd sqlplus
system: acpid airflow aspell asterisk btop busctl byobu celery check_by_ssh check_cups check_log
    check_memory check_raid check_statusfile chsh circusd cowsay cowthink cron crontab depmod dosbox dracut
    dstat entr exiftool exim flite grc groff gtester gunicorn hping3 htop iftop incrond init inotifywait
    insmod ispell jtag kmod ldconfig ldd mail mailx mkinitramfs modprobe msgfilter neofetch nroff opencode
    pidstat rmmod screenfetch setcap telinit tic top udevadm update-initramfs uwsgi vlock xmodmap yelp
    zathura zsoelim
"""
UNSAFE = frozenset(
    name
    for line in _BY_KIND.strip().replace("\n    ", " ").splitlines()
    for name in line.partition(":")[2].split()
)

MULTI_CALL = frozenset({"busybox", "toybox", "coreutils"})
"""Programs that are many: a link to one of them is the program that the link is called."""

_VERSION = re.compile(r"[-_]?[0-9][0-9.]*\Z")


def is_unsafe(name: str) -> bool:
    """Whether to allow the program of this name (without directories) is to allow everything.

    A version or variant at its end does not count: `python3.12` is `python`, and `vim.tiny` is `vim`.
    """
    lowered = name.lower()
    stems = (name, lowered, _VERSION.sub("", lowered), lowered.partition(".")[0])
    return any(stem in UNSAFE for stem in stems)


_VARIABLES_TEXT = """
    ALL_PROXY BASHOPTS BROWSER CDPATH CLASSPATH EDITOR ENV FIGNORE FPATH GCONV_PATH GLIBC_TUNABLES
    GLOBIGNORE HOME HOSTALIASES HTTPS_PROXY HTTP_PROXY IFS LOCALDOMAIN LOCPATH LUA_CPATH LUA_PATH MANPAGER
    NLSPATH NODE_OPTIONS NODE_PATH OPENSSL_CONF OPENSSL_ENGINES PAGER PATH POSIXLY_CORRECT PROMPT_COMMAND
    PS4 RES_OPTIONS SHELL SHELLOPTS SUDO_ASKPASS SUDO_EDITOR TAR_OPTIONS TERMCAP TERMINFO TERMINFO_DIRS
    TMPDIR VISUAL ZDOTDIR all_proxy http_proxy https_proxy
"""
_VARIABLES = frozenset(_VARIABLES_TEXT.split())
_FAMILIES_TEXT = """
    AWK BASH_ DBUS_ DOCKER_ DYLD_ EMACS GCC_ GIT_ JAVA_ JDK_ KRB5 LD_ LESS MAKE MALLOC_ MUSTER_ NPM_ PERL
    PYTHON RUBY SSH_ SYSTEMD_ VIM XDG_ _JAVA npm_
"""
_FAMILIES = tuple(_FAMILIES_TEXT.split())
"""How the names of further ones begin."""


def is_unsafe_variable(name: str) -> bool:
    """Whether who sets this variable decides what programs load or run. A name may end in `*`."""
    stem = name.removesuffix("*")
    if name.endswith("*") and any(one.startswith(stem) for one in (*_VARIABLES, *_FAMILIES)):
        return True
    return stem in _VARIABLES or stem.startswith(_FAMILIES)
