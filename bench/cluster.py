"""A cluster of the benchmark's own, and what one run in it costs: time, processor, memory, WAL."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

# The same for all contenders. Autovacuum would put its own work into whoever runs at that moment.
SETTINGS = """
listen_addresses = '127.0.0.1'
wal_level = replica
shared_buffers = 2GB
max_wal_size = 16GB
checkpoint_timeout = 1d
autovacuum = off
"""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """One run."""

    seconds: float
    cpu_seconds: float  # of the client's processes and of the server's, threads included
    memory: int  # bytes: peak of the backend's anonymous memory
    wal: int  # bytes


class Cluster:
    """Started by entering it, gone with its files after it."""

    def __init__(self, binaries: Path):
        self.binaries = binaries
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="bulk-bench-", dir="/tmp"))
        self.directory.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if os.getuid() == 0:
            shutil.chown(self.directory, self.user)
        self._server("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with open(self._data / "postgresql.conf", "a") as conf:
            conf.write(SETTINGS + f"unix_socket_directories = '{self.directory}'\nport = {self.port}\n")
        # Who comes over the network is asked for a password.
        (self._data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self._server("pg_ctl", "-D", self._data, "-w", "-l", self.directory / "log", "start")
        self.admin = psycopg.connect(self.address, autocommit=True)
        return self

    def __exit__(self, *_):
        if hasattr(self, "admin"):
            self.admin.close()
        self._server("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")
        shutil.rmtree(self.directory)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def address(self) -> str:
        return f"host={self.directory} port={self.port} user=postgres dbname=postgres"

    def _server(self, program: str, *arguments):
        subprocess.run(
            [self.binaries / program, *arguments], check=True, user=self.user if os.getuid() == 0 else None,
            cwd=self.directory, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )

    def ended_cpu(self) -> float:
        """Seconds of processor of all server processes that have ended, once only ours and the server's own are left."""
        others = "select count(*) from pg_stat_activity where backend_type in ('client backend', 'bulk worker') and pid <> pg_backend_pid()"
        for _ in range(1000):
            if self.sql(others) == 0:
                break
            time.sleep(0.01)
        # They are waited for a moment after they are no longer listed.
        time.sleep(0.2)
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        # Behind the name: fields 16 and 17 of proc(5), of the children that were waited for.
        fields = Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) / TICKS

    def sql(self, statement: str):
        """Runs a statement; the first row's first column, if there is one."""
        cursor = self.admin.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]

    def psql(self, script: str, feed: str | None = None) -> Cost:
        """Runs a psql script in a session of its own and measures it. `feed`, a shell command, is piped into its COPY FROM PSTDIN."""
        before, after = self.directory / "before", self.directory / "after"
        script_file = self.directory / "script.sql"
        script_file.write_text(
            f"\\set ON_ERROR_STOP 1\n\\o {before}\nselect pg_backend_pid();\n\\o /dev/null\n{script}\n"
            f"\\o {after}\nselect pg_read_file('/proc/self/stat');\n"
        )
        psql = f"{self.binaries}/psql -X -q -A -t -f {script_file} '{self.address}'"
        command = f"set -o pipefail; {feed} | {psql}" if feed else f"exec {psql}"
        return self._measure(["bash", "-c", command], before, after)

    def python(self, program: Path, *arguments) -> Cost:
        """Runs a Python client, which writes the same two files as a psql script does."""
        before, after = self.directory / "before", self.directory / "after"
        command = [shutil.which("python3"), str(program), self.address, str(before), str(after), *map(str, arguments)]
        return self._measure(command, before, after)

    def _measure(self, command: list[str], before: Path, after: Path) -> Cost:
        before.unlink(missing_ok=True)
        after.unlink(missing_ok=True)
        start_wal = self.sql("select pg_current_wal_insert_lsn()")
        start = time.perf_counter()
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with Peak(before) as peak:
            _, status, usage = os.wait4(client.pid, 0)
            seconds = time.perf_counter() - start
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {client.returncode}")
        # Behind the name, which may hold spaces: field 14 and 15 of proc(5), user and system time.
        fields = after.read_text().rsplit(")", 1)[1].split()
        server = (int(fields[11]) + int(fields[12])) / TICKS
        wal = self.sql(f"select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{start_wal}')::bigint")
        return Cost(seconds, usage.ru_utime + usage.ru_stime + server, peak.bytes, wal)


class Peak:
    """Watches the anonymous memory of the process whose id appears in a file."""

    def __init__(self, file: Path):
        self.file = file
        self.bytes = 0

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def _watch(self):
        status = None
        while not self.ended.wait(0.02):
            try:
                if status is None:
                    status = f"/proc/{int(self.file.read_text())}/status"
                with open(status) as lines:
                    found = next(line for line in lines if line.startswith("RssAnon:"))
                self.bytes = max(self.bytes, int(found.split()[1]) * 1024)
            except (OSError, ValueError, StopIteration):
                continue
