"""Retrieved passages made shorter for a question, without a word changed."""

from llmcost_plugins.compression.compressor import Compressor, Rates
from llmcost_plugins.compression.describing import compressor_of, described
from llmcost_plugins.compression.fitting import Fitted, fit
from llmcost_plugins.compression.head import Head
from llmcost_plugins.compression.llmlingua import LLMLingua
from llmcost_plugins.compression.passages import CompressionResult, Kept, Passage, Span
from llmcost_plugins.compression.scorers import Bm25, Headed, Hybrid, Scorer
from llmcost_plugins.compression.vectors import StoredEmbedder
from llmcost_plugins.compression.worth import worth_it

__all__ = [
    "Bm25",
    "CompressionResult",
    "Compressor",
    "Fitted",
    "Head",
    "Headed",
    "Hybrid",
    "Kept",
    "LLMLingua",
    "Passage",
    "Rates",
    "Scorer",
    "Span",
    "StoredEmbedder",
    "compressor_of",
    "described",
    "fit",
    "worth_it",
]
