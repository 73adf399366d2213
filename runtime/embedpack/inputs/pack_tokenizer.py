"""Tokenizer of a pack, and the token that a single vector is of."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.errors import PackError
from embedpack.inputs.tokenizer import TextRules, TextTokenizer
from embedpack.pack.folder import Pack

# The largest tokenizers of published models have 33 MB.
MAX_TOKENIZER_BYTES = 100_000_000
# Places of the tokens that poolings of one token take.
PLACES = {"cls": 0, "last": -1}


def open_tokenizer(pack: Pack) -> TextTokenizer:
    """Open the tokenizer of a pack; PackError if it is changed, or has tokens beyond the graphs' embedding table."""
    text = pack.manifest.text
    size = pack.manifest.files[text.tokenizer].bytes
    if size > MAX_TOKENIZER_BYTES:
        raise PackError(f"{pack.folder / text.tokenizer}: {size} bytes; a tokenizer has at most {MAX_TOKENIZER_BYTES}")
    content = pack.read(text.tokenizer)
    try:
        tokenizer = TextTokenizer(content, text.max_tokens, TextRules(text.strip, text.after))
        largest_id = tokenizer.largest_id
    except PackError as cause:
        raise PackError(f"{pack.folder}: {cause}") from cause
    if largest_id >= text.vocabulary:
        raise PackError(
            f"{pack.folder}: {text.tokenizer} has ids up to {largest_id}, the graphs' embedding table only "
            f"{text.vocabulary} rows; it belongs to another model: copy the pack again"
        )
    return tokenizer


@dataclass(frozen=True)
class PooledToken:
    """The one token of a text whose hidden state becomes the single vector."""

    place: str  # "first" or "last"
    added: str | None  # token that the tokenizer adds there to every text; None: it is one of the prompt and the text


def pooled_token(pack: Pack) -> PooledToken | None:
    """Pooled token of a pack; None for poolings of all tokens, and without single vectors. Errors: `open_tokenizer`."""
    single = pack.manifest.single
    if single is None or single.pooling not in PLACES:
        return None
    place, tokenizer = PLACES[single.pooling], open_tokenizer(pack)
    (tokens,) = tokenizer.encode(["a"], "")
    added = tokenizer.decode([int(tokens.ids[place])]) if tokens.special[place] else None
    return PooledToken("first" if place == 0 else "last", added)
