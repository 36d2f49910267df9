"""Tables of texts that other columns refer to by row. A text goes in once, and before anything that refers to it."""

from collections.abc import Mapping, Sequence

from tandem_datasets.codecs import encode_text
from tandem_datasets.files import Syncer, replace_file
from tandem_datasets.layout import Column
from tandem_datasets.reading import metadata_path, read_declared, read_texts
from tandem_datasets.shards import ShardWriter


class TextTable:
    """Numbers texts. Every method can be called again after an OSError."""

    def __init__(self, root: str, column: Column, where: str, syncer: Syncer) -> None:
        self.shards = ShardWriter(root, column, where, syncer)
        self._root, self._column, self._where, self._syncer = root, column, where, syncer
        self._codes: dict[str, int] | None = None  # text -> its row; None: it is not certain what the disk has

    def recover(self) -> dict[str, int]:
        """Takes the table up as its ``zarr.json`` says that it is."""
        rows = read_declared(self._root, self._column, self._where)
        self.shards.recover(rows)
        texts = read_texts(self._root, self._column, 0, rows, self._where)
        self._codes = {text: code for code, text in enumerate(texts)}
        return self._codes

    def add(self, texts: Sequence[str]) -> Mapping[str, int]:
        """Brings those that are new to the disk; the rows of all. What nothing refers to after all is harmless."""
        codes = self.recover() if self._codes is None else self._codes
        new = [text for text in dict.fromkeys(texts) if text not in codes]
        if new:
            rows, self._codes = len(codes), None
            self.shards.append([encode_text(text) for text in new])
            self.shards.seal()
            self._syncer.flush()
            self.shards.publish()
            metadata = self._column.metadata_bytes(rows + len(new))
            replace_file(metadata_path(self._root, self._column), metadata, self._syncer)
            self.shards.finish()
            codes |= {text: rows + k for k, text in enumerate(new)}
            self._codes = codes
        return codes
