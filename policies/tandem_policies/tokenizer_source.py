"""Tokenizers by name: from a folder, or from the Hugging Face hub. Imports transformers when called."""

import json
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_policies.hub import folder_of
from tandem_policies.tokenizer import TextTokenizer

_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_ALSO = ("merges.txt", "special_tokens_map.json", "added_tokens.json", "config.json")  # the last says which class


def fetch_tokenizer(name: str, pad: str | None = None) -> TextTokenizer:
    """The fast tokenizer of a folder or a hub name, as it is stored with a policy: it needs neither again.

    Args:
        name: a folder that holds a tokenizer, or a name on the hub ("google-bert/bert-base-uncased").
        pad: the token to pad with; None: the one that the tokenizer names.

    Raises:
        TandemError: no such folder or name, no network, no fast version, or no token to pad with.
    """
    where = f"tokenizer '{name}'"
    tokenizer = _load(name, where)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TandemError(f"{where}: is a {type(tokenizer).__name__} (wanted: one with a fast version, tokenizer.json)")
    padding = pad or tokenizer.pad_token
    if padding is None:
        raise TandemError(f"{where}: has no padding token (wanted: tokenizer_pad=<a token>{_hint(tokenizer)})")
    if backend.token_to_id(padding) is None:
        raise TandemError(f"{where}: tokenizer_pad is '{padding}' (allowed: one of its tokens{_hint(tokenizer)})")
    parts = json.loads(backend.to_str())
    parts["truncation"] = None
    parts["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": backend.token_to_id(padding),
        "pad_type_id": 0,
        "pad_token": padding,
    }
    return TextTokenizer(json.dumps(parts, ensure_ascii=False), where)


def _load(name: str, where: str) -> Any:
    folder = folder_of(name, _FILES, where, _ALSO)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 (each of its many formats raises its own)
        raise TandemError(f"{where}: cannot be read: {' '.join(str(error).split())[:160]}") from None


def _hint(tokenizer: Any) -> str:
    """Which token others pad with where there is none."""
    for token in (tokenizer.eos_token, tokenizer.unk_token, *tokenizer.all_special_tokens):
        if token is not None:
            return f", such as '{token}'"
    return ""
