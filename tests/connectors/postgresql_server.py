"""Start a PostgreSQL server for one test run: a cluster in a temporary folder, on a free port of the loopback."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, DATABASE = "steward", "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlServer:
    """Where it listens, and what it lets in."""

    port: int
    password: str

    @property
    def uri(self) -> str:
        """With the password in it."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def bare_uri(self) -> str:
        """Without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL on this machine; Debian keeps them off the path."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@contextmanager
def started() -> Iterator[PostgresqlServer]:
    """A server that is gone, with all its files, when the block ends."""
    found = binaries()
    assert found is not None, "only asked for where it is installed"
    folder = Path(tempfile.mkdtemp(prefix="synthehr-postgresql-"))
    server = PostgresqlServer(port=_free_port(), password=secrets.token_hex(8))
    secret = folder / "secret"
    secret.write_text(server.password, encoding="ascii")
    as_user = _other_user(folder, secret)
    data = folder / "data"

    def run(*command: str) -> None:
        subprocess.run(
            [str(found / command[0]), *command[1:]], check=True, cwd=folder, stdout=subprocess.DEVNULL, **as_user
        )

    try:
        run("initdb", f"--pgdata={data}", f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip
        options = (
            f"-p {server.port} -h 127.0.0.1 -k {folder} -c fsync=off -c full_page_writes=off -c max_connections=20"
        )
        run("pg_ctl", f"--pgdata={data}", f"--log={folder / 'log'}", f"--options={options}", "--wait", "start")
        try:
            import psycopg

            with psycopg.connect(server.uri.replace(f"/{DATABASE}", "/postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
            yield server
        finally:
            run("pg_ctl", f"--pgdata={data}", "--mode=immediate", "--wait", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _other_user(*owned: Path) -> dict[str, str | int]:
    """PostgreSQL does not run as root: then the files and the processes are another user's."""
    if os.geteuid() != 0:
        return {}
    name = next(name for name in ("postgres", "nobody") if _known(name))
    entry = pwd.getpwnam(name)
    for path in owned:
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
