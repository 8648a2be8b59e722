"""What keeps an answer from being given to a question that only looks the same."""

from llmcost_plugins.cache.vetoes.reading import Reading, read
from llmcost_plugins.cache.vetoes.rules import VETOES, Veto, refused_by, same_content

__all__ = ["VETOES", "Reading", "Veto", "read", "refused_by", "same_content"]
