"""How the bytes of documents become tokens: bytes, a trained vocabulary, or the model's own.

Whatever it is, its tokenizer is one of transformers', so that it is saved with the student and read
back by those who generate with it.
"""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from had.errors import HadError

logger = logging.getLogger(__name__)

END = "<|endoftext|>"
_FORMAT = 1  # raise when training changes, so that older vocabularies are not reused
_PIECE = 1 << 18  # characters that one thread of a tokenizer call works on
_TOGETHER = 16  # documents a call: bounded memory, and all threads get work


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        name: of its file.
        content: UTF-8, or any bytes where tokens are bytes; no byte order mark, LF line ends.
    """

    name: str
    content: bytes

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> "Document":
        """A file; HadError if it cannot be read."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise HadError(f"{path}: cannot be read ({error.strerror})") from error
        content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        return cls(name or str(path), content)

    @property
    def text(self) -> str:
        """The content as text; HadError where it is none."""
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise HadError(
                f"{self.name}: byte {error.start} is not valid UTF-8; save the file as UTF-8, or "
                "give task.tokenizer=bytes, which reads any file"
            ) from None


class Vocabulary(ABC):
    """A way to divide documents into tokens; what `task.tokenizer` names."""

    is_text: ClassVar[bool] = True
    """Whether documents must be valid UTF-8."""

    @abstractmethod
    def tokenizer(self, own: Callable[[], Any], train: Sequence[Document]) -> Any:
        """The tokenizer that goes with a new model.

        Args:
            own: gives the model's own, or raises HadError.
            train: the training documents.
        """

    def tokens(self, tokenizer: Any, document: Document) -> NDArray[np.int32]:
        """Tokens of a document, (tokens,), without any that mark its beginning or end."""
        return next(self.each(tokenizer, [document]))

    def each(self, tokenizer: Any, documents: Sequence[Document]) -> Iterator[NDArray[np.int32]]:
        """`tokens` of several documents, by as many threads as the tokenizer has."""
        for first in range(0, len(documents), _TOGETHER):
            texts = [document.text for document in documents[first : first + _TOGETHER]]
            pieces = [
                (owner, text[start : start + _PIECE])
                for owner, text in enumerate(texts)
                for start in range(0, len(text), _PIECE)
            ]
            encoded = self._encoded(tokenizer, [piece for _, piece in pieces])
            for owner in range(len(texts)):
                own = [ids for (of, _), ids in zip(pieces, encoded, strict=True) if of == owner]
                yield np.concatenate([np.zeros(0, dtype=np.int32), *own])

    @staticmethod
    def _encoded(tokenizer: Any, pieces: list[str]) -> list[NDArray[np.int32]]:
        if not pieces:
            return []
        encoded = tokenizer(
            pieces, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def ended(self, tokenizer: Any, documents: Sequence[Document]) -> NDArray[np.int32]:
        """Tokens of documents, each followed by the end of the text where there is such a token."""
        token = tokenizer.eos_token_id
        end = np.array([] if token is None else [token], dtype=np.int32)
        parts = [part for tokens in self.each(tokenizer, documents) for part in (tokens, end)]
        return np.concatenate(parts)


class OwnVocabulary(Vocabulary):
    """The tokenizer that the model was trained with."""

    def tokenizer(self, own: Callable[[], Any], train: Sequence[Document]) -> Any:
        return own()


class ByteVocabulary(Vocabulary):
    """A byte is a token, 256 is the end of a text; nothing is trained and nothing is unknown."""

    is_text = False

    def tokenizer(self, own: Callable[[], Any], train: Sequence[Document]) -> Any:
        return byte_tokenizer()

    def each(self, tokenizer: Any, documents: Sequence[Document]) -> Iterator[NDArray[np.int32]]:
        for document in documents:
            yield np.frombuffer(document.content, dtype=np.uint8).astype(np.int32)


@dataclass(frozen=True)
class TrainedVocabulary(Vocabulary):
    """Byte pairs merged by how often they occur in the training documents.

    Attributes:
        size: tokens, the end of a text among them.
        cache: where trained vocabularies are kept, by a hash of what they were trained on.
    """

    size: int
    cache: Path

    def tokenizer(self, own: Callable[[], Any], train: Sequence[Document]) -> Any:
        file = self.cache.expanduser() / "tokenizers" / f"{self._fingerprint(train)}.json"
        if file.is_file():
            return _wrapped(Tokenizer.from_file(str(file)))
        logger.info("training a vocabulary of %d tokens, kept in %s", self.size, file)
        trained = self._train(train)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        trained.save(str(partial))
        partial.replace(file)
        return _wrapped(trained)

    def _fingerprint(self, train: Sequence[Document]) -> str:
        digest = hashlib.blake2b(f"{_FORMAT} {self.size}".encode(), digest_size=16)
        for document in train:
            digest.update(hashlib.blake2b(document.content).digest())
        return digest.hexdigest()

    def _train(self, train: Sequence[Document]) -> Tokenizer:
        trainer = trainers.BpeTrainer(
            vocab_size=self.size,
            special_tokens=[END],
            initial_alphabet=_byte_characters(),
            show_progress=False,
        )
        blank = _byte_level(models.BPE())
        blank.train_from_iterator((document.text for document in train), trainer)
        return blank


VOCABULARIES: Mapping[str, Callable[[int, Path], Vocabulary]] = {
    "model": lambda size, cache: OwnVocabulary(),
    "bytes": lambda size, cache: ByteVocabulary(),
    "bpe": TrainedVocabulary,
}
"""What `task.tokenizer` may be; each is made from `task.vocabulary` and the cache directory."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer whose token i is the byte i, and 256 the end of a text."""
    ids = {character: byte for byte, character in enumerate(_byte_characters())}
    backend = _byte_level(models.BPE(ids, []))
    backend.add_special_tokens([END])
    return _wrapped(backend)


def _byte_level(model: models.Model) -> Tokenizer:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_characters() -> list[str]:
    """The character that stands for each byte, in order, as byte-level tokenizers have them.

    Printable bytes of Latin-1 stand for themselves, the others for characters from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
