"""A PostgreSQL server of a benchmark's own, from whichever version is installed."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


@contextmanager
def server(folder: Path, databases: Sequence[str]) -> Iterator[list[str]]:
    """Start a server in the folder, with durability off, and give the URLs of these empty databases.

    Raises:
        SystemExit: PostgreSQL's server is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "").parent]
    if not (found[-1] / "initdb").is_file():
        raise SystemExit("PostgreSQL's server is not installed: name a database with --database-url.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        folder.chmod(0o755)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "postgresql"
    data.mkdir()
    if as_user:
        shutil.chown(data, "postgres")

    def call(program: str, *options: str) -> None:
        subprocess.run(
            [*as_user, str(found[-1] / program), *options], check=True, capture_output=True, cwd="/"
        )

    call("initdb", "-D", f"{data}/data", "-U", "allreview", "-A", "trust", "-E", "UTF8", "--no-sync")
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    call("pg_ctl", "-D", f"{data}/data", "-o", settings, "-w", "-l", f"{data}/log", "start")
    try:
        url = sa.make_url(f"postgresql+psycopg://allreview@127.0.0.1:{port}/postgres")
        with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            for name in databases:
                connection.exec_driver_sql(f"create database {name}")
        yield [str(url.set(database=name)) for name in databases]
    finally:
        call("pg_ctl", "-D", f"{data}/data", "-m", "immediate", "-w", "stop")
