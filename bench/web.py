"""nginx serving a directory on the loopback."""

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

NGINX = Path(os.environ.get("BULK_CACHE", "/var/cache/bulk")) / "nginx/usr/sbin/nginx"


class Web:
    """Started by entering it, ended with it."""

    def __init__(self, root: Path):
        self.root = root

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="bulk-bench-web-", dir="/tmp")
        home = self.home.name
        Path(home).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        paths = " ".join(f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        configuration = Path(home) / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\nevents {{}}\n"
            f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{self.port}; root {self.root}; }} }}\n"
        )
        self.process = subprocess.Popen([NGINX, "-c", configuration, "-e", f"{home}/error.log"], stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise RuntimeError("nginx does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.home.cleanup()

    def url(self, file: Path) -> str:
        return f"http://127.0.0.1:{self.port}/{file.relative_to(self.root)}"
