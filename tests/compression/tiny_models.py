"""Small models with random weights, written as `save_pretrained` writes real ones."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
)

CORPUS = [
    "The population of Sweden was 7,731,004 in 1962, and Wilhelm Conrad Röntgen won the first Nobel Prize in 1901.",
    "Researchers reported that the committee paid 150,782 SEK to the winners after a long and careful debate.",
    "The company did not refund the customers who had complained about broken invoices and late deliveries.",
    '{"id": 12, "name": "Widget", "price": 19.99, "tags": ["a", "b"]}',
    "See https://example.com/docs/v2?page=3 for the well-known and state-of-the-art guide to the whole system.",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:!?()[]{}<>\"'`-_/=+*#%&@$|\\~^ é ö ü",
] * 4
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def mbert(
    folder: Path, *, hidden: int = 32, layers: int = 2, tokenizer: Tokenizer | None = None, seed: int = 0
) -> Path:
    """A WordPiece token classifier in a directory that `llmlingua` takes for multilingual BERT."""
    tokenizer = tokenizer or _word_pieces()
    names = dict(zip(_NAMES, _SPECIAL, strict=True))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32 if hidden > 32 else 2,
        intermediate_size=4 * hidden,
        initializer_range=0.4 if hidden == 32 else 0.02,  # so that so small a model tells words apart
        num_labels=2,
    )
    torch.manual_seed(seed)
    return _saved(folder / "bert-base-multilingual-cased", BertForTokenClassification(config), tokenizer, names)


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=_SPECIAL))
    return tokenizer


def xlm_roberta(folder: Path, *, seed: int = 0) -> Path:
    """A Unigram token classifier in a directory that `llmlingua` takes for XLM-RoBERTa."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = dict(zip(_NAMES, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True))
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        initializer_range=0.4,
        num_labels=2,
    )
    torch.manual_seed(seed)
    return _saved(folder / "xlm-roberta-large-tiny", XLMRobertaForTokenClassification(config), tokenizer, names)


def gpt2(folder: Path, *, window: int = 256, seed: int = 0) -> Path:
    """A causal language model on byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=window,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return _saved(folder / "tiny-gpt2", GPT2LMHeadModel(config), tokenizer, names)


def _saved(folder: Path, model: Any, tokenizer: Tokenizer, names: dict[str, str]) -> Path:
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names).save_pretrained(
        folder
    )
    return folder
