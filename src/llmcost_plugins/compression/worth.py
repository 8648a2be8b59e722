"""Whether a compression pays."""


def worth_it(
    before: int,
    after: int,
    *,
    input_rate: int,
    cached_tokens: int = 0,
    cached_rate: int = 0,
    embedded_tokens: int = 0,
    embedding_rate: int = 0,
) -> bool:
    """Tell whether `after` tokens cost less than `before`, what it takes to get there included.

    Rates are in pico-USD a token. `cached_tokens` of those before would come from the provider's prompt cache, at
    `cached_rate`; passages that were compressed for one question never do. `embedded_tokens` are those that have to be
    embedded for it.
    """
    reread = min(max(cached_tokens, 0), before)
    whole = (before - reread) * input_rate + reread * cached_rate
    return after * input_rate + embedded_tokens * embedding_rate < whole
