"""Names that a parameter of a script cannot have, because a shell, the loader or an interpreter gives them a meaning.

A value under such a name would change how the script is run (PATH, BASH_ENV, LD_PRELOAD), or not arrive as it was given
(RANDOM, UID, zsh's `status`). PowerShell and cmd do not tell capitals from small letters, so for them neither do we.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREFIXES: Final = (
    *(
        "MUSTER_",
        "LD_",
        "DYLD_",
        "PYTHON",
        "BASH_",
        "LC_",
        "MALLOC_",
        "GLIBC_",
        "PERL5",
        "RUBY",
        "GIT_",
        "SSH_",
    ),
    *("LUA_", "PHP_", "NPM_CONFIG_", "OPENSSL_"),
)
"""Beginnings that are refused for every shell."""

EVERYWHERE: Final = _words("""
    _ PATH IFS ENV HOME PWD OLDPWD SHELL USER LOGNAME USERNAME HOSTNAME LANG LANGUAGE TZ TZDIR TERM TERMINFO
    TERMINFO_DIRS TERMCAP TMPDIR TMP TEMP TRACEPARENT TRACESTATE
    BASH BASHOPTS BASHPID SHELLOPTS SHLVL UID EUID GID EGID PPID RANDOM SRANDOM SECONDS LINENO OPTIND OPTARG OPTERR
    REPLY PS0 PS1 PS2 PS3 PS4 PROMPT_COMMAND PROMPT_DIRTRIM CDPATH FPATH FCEDIT HISTFILE HISTCMD HISTCONTROL HISTIGNORE
    HISTSIZE HISTFILESIZE HISTTIMEFORMAT HOSTFILE HOSTTYPE OSTYPE MACHTYPE IGNOREEOF INPUTRC MAIL MAILCHECK MAILPATH
    POSIXLY_CORRECT TIMEFORMAT TMOUT GLOBIGNORE GLOBSORT EXECIGNORE FIGNORE FUNCNAME FUNCNEST GROUPS DIRSTACK MAPFILE
    COPROC COPROC_PID COMPREPLY COMP_CWORD COMP_KEY COMP_LINE COMP_POINT COMP_TYPE COMP_WORDBREAKS COMP_WORDS PIPESTATUS
    CHILD_MAX COLUMNS LINES EMACS EPOCHREALTIME EPOCHSECONDS READLINE_ARGUMENT READLINE_LINE READLINE_MARK
    READLINE_POINT INSIDE_EMACS auto_resume histchars
    KSH_VERSION KSHEGID KSHGID KSHUID USER_ID PGRP PATHSEP EXECSHELL ERRNO VPATH
    ZDOTDIR ARGV0 NULLCMD READNULLCMD STTY
    NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS CLASSPATH PHPRC
    PAGER MANPAGER EDITOR VISUAL BROWSER LESSOPEN LESSCLOSE LESS SUDO_ASKPASS RSYNC_RSH CVS_RSH TAR_OPTIONS
    MAKEFLAGS MAKEFILES GCONV_PATH GETCONF_DIR HOSTALIASES LOCALDOMAIN LOCPATH NLSPATH NIS_PATH RES_OPTIONS
    RESOLV_HOST_CONF GREP_OPTIONS
""")
"""As they are written here, for every shell."""

IN_ZSH: Final = _words("""
    argv status pipestatus path cdpath fpath fignore mailpath manpath module_path prompt psvar reply signals watch
    options commands functions aliases galiases saliases parameters modules history historywords dirstack nameddirs
    userdirs jobtexts jobstates jobdirs builtins reswords patchars funcstack functrace funcfiletrace funcsourcetrace
    usergroups mapfile errnos sysparams epochtime langinfo termcap terminfo keymaps widgets compstate region_highlight
    zsh_eval_context zsh_scheduled_events dis_aliases dis_builtins dis_functions dis_galiases dis_patchars dis_reswords
    dis_saliases functions_source dis_functions_source
    ARGC CPUTYPE CORRECT_IGNORE CORRECT_IGNORE_FILE DIRSTACKSIZE HISTCHARS HISTNO HOST KEYBOARD_HACK KEYTIMEOUT
    LISTMAX LOGCHECK MANPATH MODULE_PATH POSTEDIT PROMPT PROMPT2 PROMPT3 PROMPT4 PROMPT_EOL_MARK PSVAR REPORTMEMORY
    REPORTTIME RPROMPT RPROMPT2 RPS1 RPS2 SAVEHIST SPROMPT TIMEFMT TRY_BLOCK_ERROR TRY_BLOCK_INTERRUPT TTY TTYIDLE
    VENDOR WATCH WATCHFMT WORDCHARS ZBEEP ZLE_LINE_ABORTED ZLE_REMOVE_SUFFIX_CHARS ZLE_RPROMPT_INDENT
    ZLE_SPACE_SUFFIX_CHARS ZLS_COLORS ZLS_COLOURS ZSH_ARGZERO ZSH_EXECUTION_STRING ZSH_EVAL_CONTEXT ZSH_NAME
    ZSH_PATCHLEVEL ZSH_SCRIPT ZSH_SUBSHELL ZSH_VERSION
""")

ON_WINDOWS: Final = _words("""
    pathext comspec systemroot windir systemdrive programfiles programdata programw6432 commonprogramfiles
    commonprogramw6432 appdata localappdata allusersprofile userprofile userdomain userdomain_roamingprofile
    computername homedrive homepath logonserver number_of_processors os public sessionname driverdata psmodulepath
""")
"""In small letters: what Windows itself has in every environment."""

IN_POWERSHELL: Final = ON_WINDOWS | _words("""
    args consolefilename enabledexperimentalfeatures error event eventargs eventsubscriber executioncontext false
    foreach host input iscoreclr islinux ismacos iswindows lastexitcode matches myinvocation nestedpromptlevel null
    pid profile psboundparameters pscmdlet pscommandpath psculture psdebugcontext psedition pshome psitem psscriptroot
    pssenderinfo psuiculture psversiontable sender shellid stacktrace switch this true
    errorview formatenumerationlimit maximumaliascount maximumdrivecount maximumerrorcount maximumfunctioncount
    maximumhistorycount maximumvariablecount ofs outputencoding psdefaultparametervalues psemailserver
    psnativecommandargumentpassing psnativecommanduseerroractionpreference pssessionapplicationname
    pssessionconfigurationname pssessionoption psstyle transcript logcommandhealthevent logcommandlifecycleevent
    logenginehealthevent logenginelifecycleevent logproviderhealthevent logproviderlifecycleevent
""")
"""In small letters: automatic and preference variables beside those that end with `Preference`."""

IN_CMD: Final = ON_WINDOWS | _words("""
    cd date time random errorlevel cmdextversion cmdcmdline highestnumanodenumber prompt dircmd copycmd
""")
"""In small letters: what cmd computes."""

_WINDOWS_PREFIXES = ("dotnet_", "powershell_", "complus_", "coreclr_", "processor_", "msys", "__ps")


def is_reserved(name: str, shell: str) -> bool:
    """Whether a parameter of a script of `shell` cannot be called `name`."""
    if name in EVERYWHERE or name.startswith(PREFIXES):
        return True
    if shell == "zsh":
        return name in IN_ZSH
    if shell not in ("powershell", "cmd"):
        return False
    folded = name.lower()
    if folded in _FOLDED or folded.upper().startswith(PREFIXES) or folded.startswith(_WINDOWS_PREFIXES):
        return True
    if shell == "cmd":
        return folded in IN_CMD
    return folded in IN_POWERSHELL or folded.endswith("preference")


_FOLDED: Final = _words("_ path home pwd temp tmp env shell username hostname traceparent")
