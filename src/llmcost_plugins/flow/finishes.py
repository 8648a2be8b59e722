"""How an answer ended, in the words of many providers."""

from collections.abc import Mapping

from llmcost_plugins.types import Finish

_FINISHES: Mapping[str, Finish] = {
    **dict.fromkeys(
        ("stop", "end_turn", "stop_sequence", "completed", "complete", "eos", "eos_token", "finished"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens", "max_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call", "tool_call"), "tool_calls"),
    **dict.fromkeys(("content_filter", "refusal", "safety", "guardrail_intervened"), "content_filter"),
}


def finish_named(reason: object) -> Finish:
    """Return what a provider's reason means. One that is not known is `other`: such answers are not kept."""
    return _FINISHES.get(str(reason).lower(), "other")
