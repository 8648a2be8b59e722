"""Every Python block of the README runs, against a provider on this machine."""

import re
from pathlib import Path

import pytest

from llmcost_plugins.testing import FakeProvider

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_block_runs(block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeProvider(keep_alive=False) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
        calls = provider.calls
    if "How do I reset my password?" in block:
        assert calls == 1
        assert "2 requests, 1 paid, 1 from cache" in capsys.readouterr().out
