"""Token counts: exact where the tokenizer lies on this machine, else an estimate that says so; never the network."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from llmcost_plugins.tokens import TokenCount, count_messages, count_text, message_text

TEXT = "Where do I find the instructions? Ünïcödé, 汉字, 🙂 and <|endoftext|>."
NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError("the network was asked for")
sys.addaudithook(refuse)
"""
COUNT = 'import json; from llmcost_plugins.tokens import count_text; print(json.dumps(count_text("{text}", "gpt-4o")))'
NO_LLAMA_INDEX = """
import sys
sys.modules["llama_index"] = None
sys.path_importer_cache.clear()
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "llama_index" else found(name, *rest)
"""


def carried() -> str | None:
    """Return the folder of the encodings that llama-index-core brings, if it is installed."""
    spec = find_spec("llama_index")
    roots = (spec and spec.submodule_search_locations) or ()
    folders = (Path(root) / "core" / "_static" / "tiktoken_cache" for root in roots)
    return next((str(folder) for folder in folders if folder.is_dir()), None)


def isolated(code: str, folder: Path, *, before: str = "") -> Any:
    """Run code that prints JSON in a process without network, with empty folders for tiktoken's files."""
    for name in ("cache", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name not in ("DATA_GYM_CACHE_DIR", "TEMP", "TMP")}
    env |= {"TIKTOKEN_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK + before + code], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_encodings = pytest.mark.skipif(carried() is None, reason="needs llama-index-core: pip install .[llamaindex]")


@needs_encodings
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-4", "gpt-3.5-turbo", "gpt-4.1", "gpt-5.4", "o3"])
def test_known_openai_models_are_counted_exactly(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = carried()
    assert folder is not None
    counted = count_text(TEXT, model)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
    expected = len(tiktoken.encoding_for_model(model).encode(TEXT, disallowed_special=()))
    assert counted == TokenCount(expected, True)


@pytest.mark.parametrize("model", ["", "claude-sonnet-4-6", "gemini-2.5-flash", "no-such-model", "llama3"])
def test_counts_for_other_models_are_flagged_as_estimates(model: str) -> None:
    counted = count_text(TEXT, model)
    assert not counted.exact
    assert 0 < counted.tokens <= len(TEXT.encode())


def test_nothing_is_no_tokens() -> None:
    assert count_text("", "claude-sonnet-4-6").tokens == 0


def test_without_any_encoding_a_token_is_four_bytes(tmp_path: Path) -> None:
    code = """
import json
from llmcost_plugins.tokens import count_messages, count_text
texts = ["", "a", "abcd", "abcde", "\u00e9\u00e9\u00e9"]
print(json.dumps([[count_text(text, model) for text in texts] for model in ("gpt-4o", "claude-x", "")]
                 + [count_messages([{"role": "user", "content": "abcde"}], "gpt-4o")]))
"""
    *counts, chat = isolated(code, tmp_path, before=NO_LLAMA_INDEX)
    assert counts == [[[0, False], [1, False], [1, False], [2, False], [2, False]]] * 3
    assert chat == [3 + 3 + 2, False]
    assert list((tmp_path / "cache").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("before", ["", NO_LLAMA_INDEX], ids=["encoding", "estimate"])
def test_half_a_surrogate_pair_is_counted_too(before: str, tmp_path: Path) -> None:
    code = COUNT.format(text="a\\ud800b")
    tokens, _ = isolated(code, tmp_path, before=before)
    assert 1 <= tokens <= 6


@needs_encodings
def test_the_network_is_not_asked_even_where_an_encoding_is_at_hand(tmp_path: Path) -> None:
    assert isolated(COUNT.format(text="hello"), tmp_path) == [1, True]


def test_a_broken_file_is_not_fetched_again(tmp_path: Path) -> None:
    code = """
import hashlib, json, os, pathlib
from llmcost_plugins.tokens import count_text
url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
name = hashlib.sha1(url.encode()).hexdigest()
pathlib.Path(os.environ["TIKTOKEN_CACHE_DIR"], name).write_bytes(b"IQ== 0")
print(json.dumps(count_text("hello", "gpt-4o")))
"""
    tokens, _ = isolated(code, tmp_path)
    assert tokens in (1, 2)


@needs_encodings
@pytest.mark.parametrize("given", [None, "", "somewhere"])
def test_the_environment_is_left_as_it_was(given: str | None, tmp_path: Path) -> None:
    change = "del os.environ['TIKTOKEN_CACHE_DIR']"
    if given is not None:
        change = f"os.environ['TIKTOKEN_CACHE_DIR'] = {str(tmp_path / given) if given else given!r}"
    code = f"""
import json, os
{change}
from llmcost_plugins.tokens import count_text
before = dict(os.environ)
count_text("hello", "gpt-4o"), count_text("hello", "gpt-4")
print(json.dumps(dict(os.environ) == before))
"""
    assert isolated(code, tmp_path) is True


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ([], ""),
        (["one", "two"], "one\ntwo"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "u"}}], "one\n"),
        ([{"type": "text", "text": None}, 5], "\n"),
    ],
)
def test_text_of_a_message(content: Any, text: str) -> None:
    assert message_text({"role": "user", "content": content}) == text
    assert message_text({"role": "user"}) == ""


@needs_encodings
def test_chat_prompts_have_an_overhead_a_message() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    texts = sum(count_text(str(message["content"]), "gpt-4o").tokens for message in messages)
    assert count_messages(messages, "gpt-4o") == TokenCount(texts + 2 * 3 + 3, True)
    assert count_messages([], "gpt-4o") == TokenCount(3, True)


def test_chat_prompts_are_estimates_where_a_part_is() -> None:
    calls = [{"name": "f", "args": {}, "id": "1"}]
    assert not count_messages([{"role": "user", "content": "hi"}], "claude-sonnet-4-6").exact
    assert not count_messages([{"role": "assistant", "content": "", "tool_calls": calls}], "gpt-4o").exact


@needs_encodings
def test_pictures_make_a_prompt_an_estimate() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    prompt = [{"role": "user", "content": [{"type": "text", "text": "what?"}, picture]}]
    assert not count_messages(prompt, "gpt-4o").exact
