"""nginx serving a directory on the loopback."""

import os
from pathlib import Path

from server import Server

NGINX = Path(os.environ.get("BULK_CACHE", "/var/cache/bulk")) / "nginx/usr/sbin/nginx"


class Web(Server):
    def __init__(self, root: Path):
        self.root = root

    def command(self) -> list:
        home = self.home
        paths = " ".join(f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        configuration = home / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\nevents {{}}\n"
            f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{self.port}; root {self.root}; }} }}\n"
        )
        return [NGINX, "-c", configuration, "-e", f"{home}/error.log"]

    def url(self, file: Path) -> str:
        return f"{self.host}/{file.relative_to(self.root)}"
