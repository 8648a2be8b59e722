"""The Redis 8 of the side environment starts and has vector sets."""

import socket
import subprocess
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / ".venv-redis8" / "bin" / "redis-server"


@pytest.mark.skipif(not SERVER.exists(), reason="needs Redis 8: run `make redis8`")
def test_the_server_knows_vector_sets(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    command = [str(SERVER), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert any("Ready to accept connections" in line for line in server.stdout)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"VADD set VALUES 2 0.1 0.9 first\r\nVCARD set\r\n")
                answers = client.makefile("rb")
                assert [answers.readline(), answers.readline()] == [b":1\r\n", b":1\r\n"]
        finally:
            server.terminate()
