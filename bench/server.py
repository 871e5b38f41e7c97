"""A process that serves a port of the loopback."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path


class Server:
    """Started by entering it, ended with it; a subclass says how."""

    def command(self) -> list:
        """Prepares the server, which is to listen on `self.port` and may keep files in `self.home`, and gives its command."""
        raise NotImplementedError

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="bulk-bench-", dir="/tmp")
        self.home = Path(self._directory.name)
        self.home.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = self.command()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(500):
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        self.__exit__()
        raise RuntimeError(f"{command} does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._directory.cleanup()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"
