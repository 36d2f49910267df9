"""Text to token ids: a byte-level BPE that covers any UTF-8 text, packaged as ``tokenizer.json``.

``python -m tandem_policies.tokenizer`` rebuilds the packaged file from :mod:`tandem_policies.corpus`. Byte-level BPE
is the scheme of GPT-2 (Radford et al., 2019). Other tokenizers come from :mod:`tandem_policies.tokenizer_source`; what
is stored of any of them is this library's own JSON, so that a policy opens with it alone.
"""

import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tandem_datasets.errors import TandemError

TOKENIZER = "tokenizer.json"
PACKAGED = Path(__file__).with_name(TOKENIZER)
PAD = "<pad>"
VOCAB_SIZE = 512


class TextTokenizer:
    """A tokenizer and the JSON text that it was read from, which travels with the weights.

    It pads with the token that its JSON names for padding, else with ``<pad>``.
    """

    def __init__(self, text: str, where: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # noqa: BLE001 (the library raises plain Exception)
            raise TandemError(f"{where}: not a tokenizer: {str(error)[:120]}") from None
        self.text = text
        self.size = 1 + max(self._tokenizer.get_vocab().values(), default=0)  # ids are 0..size-1
        token = (self._tokenizer.padding or {}).get("pad_token", PAD)
        pad = self._tokenizer.token_to_id(token)
        if pad is None:
            raise TandemError(f"{where}: the vocabulary lacks {token}, to pad with")
        self.pad: int = pad
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._ids = lru_cache(maxsize=65536)(self._encode)

    def encode(self, texts: Sequence[str], longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 (B, L) and mask bool (B, L), True = real; L is the longest text's, at least 1, at most ``longest``.

        Longer texts are cut at the end; an empty text is one row of padding only.
        """
        rows = [self._ids(text)[:longest] for text in texts]
        width = max([1, *map(len, rows)])
        ids = np.full((len(rows), width), self.pad, np.int64)
        mask = np.zeros((len(rows), width), np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        return ids, mask

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text alone, without a beginning or an end that the tokenizer would add."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, as normalised."""
        return self._tokenizer.decode(list(ids)).strip()

    def _encode(self, text: str) -> tuple[int, ...]:
        # One text at a time: the library's batch call starts threads, which do not survive a fork.
        return tuple(self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids)


@cache
def packaged_tokenizer() -> TextTokenizer:
    """The tokenizer that ships with the package."""
    return TextTokenizer(PACKAGED.read_text("utf-8"), str(PACKAGED))


def build_tokenizer(corpus: Sequence[str], vocab_size: int = VOCAB_SIZE) -> str:
    """The JSON text of a byte-level BPE of at most ``vocab_size`` ids over a corpus; the same corpus gives the same."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer.to_str(pretty=True)


if __name__ == "__main__":
    from tandem_policies.corpus import sentences

    PACKAGED.write_text(build_tokenizer(list(sentences())) + "\n", "utf-8")
    sys.stdout.write(f"{PACKAGED}: {packaged_tokenizer().size} ids\n")
