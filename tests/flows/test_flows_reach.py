"""Hosts that cannot be got at, or are not ready: told apart, tried again or not, and left alone when they hang."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from site_of_flows import Door, Site, programs
from sshd import Sshd, make_key
from waiting import PATIENCE, wait_until

from app.flows import by_asyncssh, gnu_parallel, over_ssh
from app.flows.breakers import Breakers
from app.flows.lines import Line
from app.flows.model import Result, Watch
from app.flows.over_ssh import OverSsh
from app.flows.ready import Readiness
from app.flows.remote import connect_by
from app.flows.seats import Access

BACKENDS = ("asyncssh", "openssh")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def ssh(site: Site, backend: str, **more: object) -> OverSsh:
    """Flows over SSH with short waits between tries."""
    connect = connect_by(backend, str(site.config))
    return OverSsh(Access(connect, site.breakers, wait=0.01, **more), 1_000_000)  # type: ignore[arg-type]


def through(site: Site, door: Door) -> str:
    """The host as it is behind a door, whose key is known there too."""
    with site.sshd.known_hosts().open("a") as known:
        known.write(f"[127.0.0.1]:{door.port} {site.sshd.host_key}\n")
    return f"{site.sshd.user}@127.0.0.1:{door.port}"


def behind(site: Site) -> tuple[str, int]:
    return site.sshd.address, site.sshd.port


def kind(result: Result) -> object:
    return (result.error or {}).get("type")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_key_that_is_not_taken_fails_at_once_with_what_to_do(backend: str, site: Site) -> None:
    make_key(site.directory / "stranger")
    with Door(behind(site)) as door:
        host = through(site, door)
        site.configure(site.sshd.directory / "known_hosts", site.directory / "stranger")
        (result,) = ssh(site, backend).execute([site.flow(0, host)], site.terms(), Watch())
        assert door.came == 1, "no second try"
    assert kind(result) == "ssh_auth"
    assert f"ssh-copy-id {host}" in str((result.error or {})["hint"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", ["nobody", "another"])
def test_a_host_key_that_is_not_trusted_fails_at_once(backend: str, known: str, site: Site) -> None:
    make_key(site.directory / "another")
    other = " ".join((site.directory / "another.pub").read_text().split()[:2])
    hosts = site.directory / "hosts"
    with Door(behind(site)) as door:
        hosts.write_text(f"[127.0.0.1]:{door.port} {other}\n" if known == "another" else "")
        site.configure(hosts)
        host = f"{site.sshd.user}@127.0.0.1:{door.port}"
        (result,) = ssh(site, backend).execute([site.flow(0, host)], site.terms(), Watch())
        assert door.came == 1, "no second try"
    assert kind(result) == "host_key", result.error
    assert "known_hosts" in str((result.error or {})["hint"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_fails_twice_is_tried_again(backend: str, site: Site) -> None:
    with Door(behind(site), shut=2) as door:
        host = through(site, door)
        good, other = ssh(site, backend).execute([site.flow(0, host), site.flow(1)], site.terms(), Watch())
        assert door.came == 3
    assert good.state is not None, good.error
    assert other.state is not None


def test_a_host_that_never_answers_is_given_up_and_left_alone(site: Site) -> None:
    clock = Clock()
    site.breakers = Breakers(3, 30.0, clock)
    flows = [site.flow(number, f"{site.sshd.user}@127.0.0.9:{site.sshd.port}") for number in range(5)]
    executor = ssh(site, "asyncssh")
    results = executor.execute([*flows, site.flow(5)], site.terms(), Watch())
    assert [kind(result) for result in results] == ["unreachable"] * 5 + [None]
    assert "circuit breaker is open for 30 s" in site.breakers.refusal(flows[0].host)
    clock.now += 29
    (result,) = executor.execute(flows[:1], site.terms(), Watch())
    assert "circuit breaker" in str((result.error or {})["message"])


def test_the_breaker_lets_one_probe_through_and_closes(site: Site) -> None:
    clock = Clock()
    site.breakers = Breakers(3, 30.0, clock)
    with Door(behind(site), shut=4) as door:
        host = through(site, door)
        executor = ssh(site, "asyncssh")

        def run() -> object:
            return kind(executor.execute([site.flow(0, host)], site.terms(), Watch())[0])

        assert (run(), door.came) == ("unreachable", 3)
        assert (run(), door.came) == ("unreachable", 3), "open: nothing is attempted"
        clock.now += 31
        assert (run(), door.came) == ("unreachable", 4), "half-open: one probe, which fails"
        clock.now += 31
        assert (run(), door.came) == ("unreachable", 4), "and the pause has grown"
        clock.now += 30
        assert (run(), door.came) == (None, 5), "the next one succeeds"
        assert site.breakers.refusal(host) == ""


def test_a_host_that_hangs_after_connect_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_asyncssh, "CONNECT_WITHIN", 0.3)
    with Door(behind(site), mute=True) as door:
        hung = f"{site.sshd.user}@127.0.0.1:{door.port}"
        results = ssh(site, "asyncssh").execute([site.flow(0, hung), site.flow(1)], site.terms(), Watch())
        assert [kind(result) for result in results] == ["unreachable", None]
        assert door.came == 3
        assert "circuit breaker" in site.breakers.refusal(hung)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_host_that_lets_in_and_hangs_then_counts(
    backend: str, sshd_program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_ssh, "COPY_WITHIN", 0.5)
    path = programs(tmp_path / "bin", df="exec sleep 60")
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        flow = site.flow(0)
        (result,) = ssh(site, backend).execute([flow], site.terms(), Watch())
    assert (kind(result), result.passing) == ("copy", True)
    assert "circuit breaker" in site.breakers.refusal(flow.host)


ODD = {
    "a name of DNS that is none": ("asyncssh", "a..b", ""),
    "a key that is none": ("asyncssh", "away-9", "HostName 127.0.0.2\nPort {port}\nIdentityFile {key}"),
    "a configuration that cannot be read": ("asyncssh", "away-9", "Port many"),
    "a jump over itself": ("asyncssh", "away-9", "ProxyJump away-9"),
    "a host that says too much": ("openssh", "away-9", "ProxyCommand none"),
}
MUCH = 'case "$*" in *away-9*) head -c 70000 /dev/zero; exec sleep 60 ;; esac; exec {ssh} "$@"'


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_about_one_host_is_its_own_failure(
    case: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, host, said = ODD[case]
    (site.directory / "odd").write_text("no key\n")
    plain = site.config.read_text()
    said = said.format(key=site.directory / "odd", port=site.sshd.port)
    site.config.write_text(f"Host away-9\n{said}\nHost * !away-9\n{plain}")
    much = MUCH.format(ssh=shutil.which("ssh"))
    monkeypatch.setenv("PATH", programs(site.directory / "bin", ssh=much))
    flows = [site.flow(0, host), site.flow(1), site.flow(2, host)]
    odd, good, again = ssh(site, backend).execute(flows, site.terms(), Watch())
    assert (kind(odd), kind(again), odd.passing) == ("unreachable", "unreachable", False), odd.error
    assert host in str((odd.error or {})["message"])
    assert good.state is not None, good.error


@pytest.mark.parametrize("by", ["ssh", "parallel"])
def test_what_nobody_thought_of_ends_one_flow_only(
    by: str, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = connect_by("asyncssh", str(site.config))

    async def odd(host: str) -> Line:
        if host == "odd":
            raise LookupError("odd")
        return await connect(host)

    access = Access(odd, site.breakers)
    found: dict[int, object] = {}
    if by == "ssh":
        watch = Watch(tell=lambda flow, result: found.update({flow.number: kind(result)}))
        OverSsh(access, 1_000_000).execute([site.flow(0, "odd"), site.flow(1)], site.terms(), watch)
    else:
        refused = Readiness(access, site.terms(), "block").make(["odd", site.hosts[1]], 1)
        found = {
            0: kind(refused["odd"]),
            1: kind(refused[site.hosts[1]]) if site.hosts[1] in refused else None,
        }
    assert found == {0: "internal", 1: None}
    assert "LookupError: odd" in caplog.text


def test_who_is_given_up_elsewhere_is_nothing_to_the_others(site: Site) -> None:
    """Flows of hosts without rsync are some of their block's, and the watch is of all of them."""
    watch = Watch(given_up={7})
    results: list[Result] = []
    flows = [site.flow(0, sleep=120)]
    thread = threading.Thread(
        target=lambda: results.extend(ssh(site, "asyncssh").execute(flows, site.terms(), watch))
    )
    thread.start()
    wait_until(lambda: site.running(), "the tool runs")
    watch.given_up.add(0)
    thread.join(PATIENCE)
    assert kind(results[0]) == "cancelled"


CASES = {
    "an old Python": ({"python3": 'case "$*" in *version_info*) echo 3.9.2; exit 1 ;; esac'}, "Python 3.11"),
    "no Python": ({"python3": "exit 127"}, "Python 3.11"),
    "a full disk": ({"df": "echo head; echo /dev/sda 1000 990 10 99% /"}, "10 kB are free in"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_host_that_is_not_ready_says_why(case: str, sshd_program: str, tmp_path: Path) -> None:
    scripts, said = CASES[case]
    path = programs(tmp_path / "bin", **scripts)
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        (result,) = ssh(site, "asyncssh").execute([site.flow(0)], site.terms(), Watch())
    assert kind(result) == "preflight"
    assert said in str((result.error or {})["message"])
    assert not site.started()


def test_a_workdir_that_belongs_to_somebody_else(site: Site) -> None:
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    site.workdir.mkdir()
    os.chown(site.workdir, 65534, 65534)
    (result,) = ssh(site, "asyncssh").execute([site.flow(0)], site.terms(), Watch())
    assert kind(result) == "preflight"
    assert "belongs to somebody else" in str((result.error or {})["message"])


def test_files_that_do_not_arrive_are_sent_again(sshd_program: str, tmp_path: Path) -> None:
    """The first tar breaks off; the second is the real one."""
    once = tmp_path / "once"
    tar = shutil.which("tar")
    script = f'if mkdir {once} 2>/dev/null; then echo "tar: disk error" >&2; exit 2; fi; exec {tar} "$@"'
    path = programs(tmp_path / "bin", tar=script)
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        (result,) = ssh(site, "asyncssh").execute([site.flow(0)], site.terms(), Watch())
    assert result.state is not None, result.error
    assert once.exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_line_that_is_lost_while_a_flow_runs(backend: str, site: Site) -> None:
    """What became of it is not known here; on its host it is ended."""
    results: list[Result] = []
    executor = ssh(site, backend)
    thread = threading.Thread(
        target=lambda: results.extend(executor.execute([site.flow(0, sleep=120)], site.terms(), Watch()))
    )
    thread.start()
    wait_until(lambda: site.running(), "the tool runs")
    site.sshd.drop_sessions()
    thread.join(PATIENCE)
    assert kind(results[0]) == "lost"
    wait_until(lambda: not site.running(), "the tool is gone")
    wait_until(lambda: not site.left(), "and its directory")


def test_without_gnu_parallel_flows_go_by_ssh(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("PATH", programs(site.directory / "bin").partition(os.pathsep)[0])
    assert not gnu_parallel.is_there()
    (result,) = site.run("auto", [site.flow(0)])
    assert result.state is not None
    assert "1 flows go by SSH: `parallel` and `rsync` are not both on the PATH" in caplog.text
    (refused,) = site.run("parallel", [site.flow(0)])
    assert kind(refused) == "preflight"


def test_a_host_without_rsync_gets_its_flows_by_ssh(
    gnu_parallel_program: str, sshd_program: str, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in [
        "sh",
        "cat",
        "mkdir",
        "rm",
        "tar",
        "df",
        "awk",
        "uname",
        "find",
        "setsid",
        "tail",
        "wc",
        "sleep",
    ]:
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    (bare / "python3").symlink_to(os.path.realpath(sys.executable))
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": str(bare)}) as sshd:
        site = Site(tmp_path, sshd)
        (refused,) = site.run("parallel", [site.flow(0)])
        (result,) = site.run("auto", [site.flow(1)])
        assert not site.left()
    assert kind(refused) == "no_rsync"
    assert result.state is not None, result.error


@pytest.mark.parametrize(
    ("host", "config", "can"),
    [
        ("ada@web-1:22", "/etc/muster/ssh_config", True),
        ("ada@[2001:db8::1]:22", "", False),
        ("web-1", "/etc/our files/config", False),
        ("web-1", "/etc/a,b", False),
    ],
)
def test_what_the_list_of_logins_of_gnu_parallel_can_name(host: str, config: str, can: bool) -> None:
    assert gnu_parallel.can_name([host], config) is can
