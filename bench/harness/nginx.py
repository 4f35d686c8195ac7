"""nginx and other servers of Debian's: where they are, and how nginx is started."""

import shutil
import subprocess

from .setup import SetupError

NGINX = """
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{rest}
}}
"""


def nginx_command(folder, workers, rest):
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(workers=workers, folder=folder, rest=rest))
    return [program("nginx"), "-p", folder, "-c", file]


def program(name):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise SetupError(f"{name} is missing: apt-get install {name}")
    return found


def version(name, option):
    done = subprocess.run([program(name), option], capture_output=True, text=True)
    text = done.stdout + done.stderr
    return next(word for word in text.replace("/", " ").split() if word[0].isdigit()).split("-")[0]
