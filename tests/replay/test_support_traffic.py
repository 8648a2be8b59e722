import json
import os
import re
import tempfile
from collections import Counter, defaultdict
from hashlib import sha1
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

KINDS = {
    "simple",
    "repeat",
    "paraphrase",
    "near_miss",
    "volatile",
    "creative",
    "personal",
    "session",
    "passages",
    "hard",
    "deferrable",
}
KEYS = {
    "id": str,
    "at": float,
    "kind": str,
    "tenant": str,
    "user": str,
    "feature": str,
    "system": str,
    "session": (str, type(None)),
    "messages": list,
    "question": str,
    "passages": (list, type(None)),
    "answer_id": str,
    "weak_right": bool,
    "weak_answer": str,
    "strong_answer": str,
    "deferrable": bool,
}
O200K = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"


def _data(name):
    return files("llmcost_plugins").joinpath("replay", "data", name).read_text(encoding="utf-8")


ROWS = [json.loads(line) for line in _data("support_traffic.jsonl").splitlines()]
PROMPTS = json.loads(_data("support_prompts.json"))


def _tokens(text):
    """Tokens by o200k_base where its table already lies on this machine, else a quarter of the characters."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    if not (folder / sha1(O200K.encode()).hexdigest()).is_file():
        return len(text) / 4
    tiktoken = pytest.importorskip("tiktoken")
    return len(tiktoken.get_encoding("o200k_base").encode(text))


def _request(row):
    return json.dumps([row["tenant"], row["system"], row["messages"]])


def test_size_ids_and_kinds():
    assert len(ROWS) >= 400
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    kinds = Counter(row["kind"] for row in ROWS)
    assert set(kinds) == KINDS
    assert min(kinds.values()) >= 10, kinds
    assert kinds["near_miss"] >= 50


def test_arrival_order():
    times = [row["at"] for row in ROWS]
    assert times[0] >= 0
    assert all(a < b for a, b in pairwise(times))
    assert 1.5 * 86400 < times[-1] - times[0] <= 2.1 * 86400


def test_keys_and_types():
    for row in ROWS:
        assert list(row) == list(KEYS), row["id"]
        for key, kind in KEYS.items():
            assert isinstance(row[key], kind), (row["id"], key)
        assert row["tenant"] in {"northwind-eu", "northwind-us"}
        assert row["system"] in PROMPTS
        assert re.fullmatch(r"u\d{3}", row["user"])
        assert row["weak_answer"].strip()
        assert row["strong_answer"].strip()
        assert row["deferrable"] == (row["kind"] == "deferrable")


def test_a_user_belongs_to_one_tenant():
    tenants = defaultdict(set)
    for row in ROWS:
        tenants[row["user"]].add(row["tenant"])
    assert all(len(found) == 1 for found in tenants.values())


def test_messages_end_with_the_user():
    for row in ROWS:
        for number, message in enumerate(row["messages"]):
            assert set(message) == {"role", "content"}
            assert message["role"] == ("user", "assistant")[number % 2]
            assert message["content"].strip()
        assert row["messages"][-1]["role"] == "user"
        if row["passages"] is None:
            assert row["messages"][-1]["content"] == row["question"], row["id"]
        if row["session"] is None:
            assert len(row["messages"]) == 1


def test_passages_format():
    for row in ROWS:
        assert (row["passages"] is not None) == (row["kind"] == "passages")
        if row["passages"] is None:
            continue
        assert 3 <= len(row["passages"]) <= 6
        assert all(80 <= len(passage.split()) <= 150 for passage in row["passages"])
        want = "Context:\n\n" + "\n\n".join(row["passages"]) + "\n\nQuestion: " + row["question"]
        assert row["messages"][-1]["content"] == want


def test_same_question_with_other_passages_can_need_another_answer():
    answers = defaultdict(set)
    for row in ROWS:
        if row["kind"] == "passages":
            answers[row["question"]].add(row["answer_id"])
    assert sum(len(found) > 1 for found in answers.values()) >= 2


def test_one_answer_id_has_one_answer():
    known = {}
    for row in ROWS:
        answer = (row["strong_answer"], row["weak_answer"], row["weak_right"])
        assert known.setdefault(row["answer_id"], answer) == answer, row["answer_id"]
    assert len({strong for strong, _, _ in known.values()}) == len(known)


def test_wrong_weak_answers_differ_from_the_strong_ones():
    for row in ROWS:
        assert row["weak_right"] or row["weak_answer"] != row["strong_answer"], row["id"]


def test_repeats_and_paraphrases_come_after_their_original():
    seen = set()
    for row in ROWS:
        if row["kind"] in {"repeat", "paraphrase"}:
            assert row["answer_id"] in seen, row["id"]
        seen.add(row["answer_id"])


def test_byte_identical_repeats():
    seen, identical = set(), 0
    for row in ROWS:
        identical += row["kind"] == "repeat" and _request(row) in seen
        seen.add(_request(row))
    assert identical >= 40


def test_identical_requests_share_an_answer_where_nothing_changes():
    answers = {}
    for row in ROWS:
        if row["kind"] not in {"volatile", "creative", "personal"}:
            key = json.dumps([row["tenant"], row["messages"]])
            assert answers.setdefault(key, row["answer_id"]) == row["answer_id"], row["id"]


def test_traps_are_present():
    by_question = defaultdict(set)
    for row in ROWS:
        by_question[row["kind"], row["question"]].add(row["answer_id"])
    for kind in ("volatile", "creative", "personal", "session"):
        assert any(len(found) > 1 for (name, _), found in by_question.items() if name == kind), kind
    tenants = defaultdict(set)
    for row in ROWS:
        if row["kind"] in {"simple", "near_miss"}:
            tenants[row["question"]].add((row["tenant"], row["answer_id"]))
    both = [found for found in tenants.values() if len({t for t, _ in found}) == len({a for _, a in found}) == 2]
    assert len(both) >= 5


def test_near_misses_have_their_own_answer():
    known = set()
    for row in ROWS:
        if row["kind"] == "near_miss":
            assert row["answer_id"] not in known, row["id"]
        if row["kind"] != "session":  # a turn inside a session may ask the same thing first
            known.add(row["answer_id"])


def test_sessions_carry_their_history():
    last = {}
    for row in ROWS:
        if row["session"] is None:
            assert row["kind"] != "session"
            continue
        before = last.get(row["session"])
        history = [] if before is None else [*before["messages"], _assistant(before["strong_answer"])]
        assert row["messages"][:-1] == history, row["id"]
        if before is not None:
            assert (row["user"], row["tenant"], row["system"]) == (before["user"], before["tenant"], before["system"])
        last[row["session"]] = row
    assert len(last) >= 15
    assert all(3 <= len(row["messages"]) <= 9 for row in last.values())


def _assistant(text):
    return {"role": "assistant", "content": text}


def test_system_prompts_have_the_promised_size():
    assert set(PROMPTS) == {"short", "long"}
    assert 1_300 <= _tokens(PROMPTS["long"]) <= 1_700
    assert 35 <= _tokens(PROMPTS["short"]) <= 70
    assert {row["system"] for row in ROWS} == {"short", "long"}


def test_shares_of_right_weak_answers():
    def share(kind):
        right = [row["weak_right"] for row in ROWS if row["kind"] == kind]
        return sum(right) / len(right)

    assert share("simple") > 0.9
    assert share("passages") > 0.8
    assert 0.25 < share("hard") < 0.45


def test_no_addresses_but_example_com():
    texts = [*PROMPTS.values()]
    for row in ROWS:
        texts += [row["question"], row["weak_answer"], row["strong_answer"], *(row["passages"] or [])]
        texts += [message["content"] for message in row["messages"]]
    for text in texts:
        for address in re.findall(r"\S*@\S*", text):
            assert re.search(r"\w@example\.com\b", address), address
