"""`had generate`: a student continues a prompt, decoding from the binary key cache."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import had
from had.attention.module import recent_keys_of
from had.errors import HadError
from had.models.storage import STUDENT, load_student
from had.models.transformers import TransformersSource

log = logging.getLogger(__name__)

LONG = 131072  # tokens, for which memory is told as well
VALUES = {"model": None, "bfloat16": torch.bfloat16, "float8": torch.float8_e4m3fn}
_CONTEXT = 5  # tokens that are decoded again beside a new one
_LONGEST = 4  # bytes of a character: what is unfinished after as many tokens never ends


def main(argv: Sequence[str]) -> int:
    """`had generate RUN --prompt TEXT`; returns the exit status.

    Raises:
        HadError: there is no student that generates, or the prompt does not fit it.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    directory = arguments.run / STUDENT if (arguments.run / STUDENT).is_dir() else arguments.run
    student, device = _generator(directory), _device(arguments.device)
    cache = _cache(student, arguments.values)
    tokenizer = TransformersSource(
        label=STUDENT, name=str(directory), modality="text"
    ).preprocessor()
    inputs = _encoded(tokenizer, arguments.prompt)
    count = _new_tokens(student, inputs["input_ids"].shape[1], arguments.max_new_tokens)
    torch.manual_seed(arguments.seed)
    stream = TextStream(tokenizer, prompted=not student.config.is_encoder_decoder)
    with had.decoding_graphs(student.to(device)):
        result = student.generate(
            **{name: tensor.to(device) for name, tensor in inputs.items()},
            **_sampling(arguments),
            **cache,
            max_new_tokens=count,
            pad_token_id=_first(tokenizer.pad_token_id, tokenizer.eos_token_id, 0),
            streamer=stream,
            return_dict_in_generate=True,
        )
    _report(stream, result.past_key_values)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="had generate", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="a run directory, or the directory of a student")
    add("--prompt", required=True, metavar="TEXT", help="what is continued")
    add("--max-new-tokens", type=_number(int, least=1), default=100, metavar="N", help="at most")
    temperature = "of sampling; 0 takes the likeliest token (default 1)"
    add("--temperature", type=_number(float, least=0), default=1.0, metavar="T", help=temperature)
    nucleus = "sample among the likeliest tokens that have this share (default 1)"
    add("--top-p", type=_number(float, least=0, most=1), default=1.0, metavar="P", help=nucleus)
    values = "what values are stored as; float8 (e4m3) halves them and rounds (default: model's)"
    add("--values", choices=VALUES, default="model", help=values)
    add("--seed", type=_number(int, least=0), default=0, metavar="N", help="default 0")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    return parser


def _number(kind: type, least: float, most: float = float("inf")) -> Any:
    """A reader of numbers within limits, for argparse."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            limits = f"{least} or more" if most == float("inf") else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number, {limits}")
        return value

    return read


def _generator(directory: Path) -> Any:
    """The student of a directory.

    Raises:
        HadError: there is none, or it has no head that generates.
    """
    student = load_student(directory)
    if not getattr(student, "can_generate", lambda: False)():
        raise HadError(
            f"{directory}: {type(student).__name__} cannot generate text; give the run of a "
            "language-model task"
        )
    return student


def _cache(student: Any, values: str) -> dict[str, Any]:
    """The argument that gives `generate` its cache; by itself it takes one of the model's type."""
    if (dtype := VALUES[values]) is None:
        return {}
    if student.config.is_encoder_decoder:
        raise HadError(f"--values {values}: not for encoder-decoder models; leave it out")
    recent = recent_keys_of(student)
    return {"past_key_values": had.BinaryKeyCache(student.config, value_dtype=dtype, recent=recent)}


def _device(name: str) -> torch.device:
    """Raises HadError where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise HadError(f"--device {name}: cannot be used ({reason}); give cpu or auto") from error


def _encoded(tokenizer: Any, prompt: str) -> dict[str, Tensor]:
    """Token ids and mask, (1, T); HadError if there are none."""
    encoded = tokenizer(prompt, return_tensors="pt")
    if not prompt or encoded["input_ids"].numel() == 0:
        raise HadError("--prompt is empty: give some text to continue")
    return {name: encoded[name].long() for name in ("input_ids", "attention_mask")}


def _new_tokens(student: Any, prompt: int, wished: int) -> int:
    """As many new tokens as are wished for and the model has positions for.

    Raises:
        HadError: the prompt alone takes all of them.
    """
    positions = getattr(student.config, "max_position_embeddings", None)
    if positions is None or prompt + wished <= positions or student.config.is_encoder_decoder:
        return wished
    if prompt >= positions:
        raise HadError(
            f"--prompt has {prompt} tokens, and the model's {positions} positions leave none to "
            "generate; shorten it"
        )
    log.warning("the model has %d positions: %d new tokens at most", positions, positions - prompt)
    return int(positions - prompt)


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.temperature == 0:
        return {"do_sample": False}
    # top_k: the library's own default would cut the tail as well.
    chosen = {"temperature": arguments.temperature, "top_p": arguments.top_p, "top_k": 0}
    return {"do_sample": True, **chosen}


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


class TextStream:
    """Writes tokens as text while they come, and takes the time.

    A token alone need not be text: a character can take several, and what precedes it can decide on
    a space. So tokens are decoded with a few before them, and held back while a character is
    unfinished.

    Args:
        tokenizer: decodes.
        prompted: whether the prompt is repeated, for decoders that continue it.

    Attributes:
        tokens: of the text so far, the prompt's included.
        times: when the prompt and each further token came, in seconds.
    """

    def __init__(self, tokenizer: Any, prompted: bool = True) -> None:
        self.tokenizer = tokenizer
        self.prompted = prompted
        self.tokens: list[int] = []
        self.times: list[float] = []
        self._start = self._shown = 0

    def put(self, value: Tensor) -> None:
        """Called by `generate` with the prompt (1, T) and then with each token (1,)."""
        self.times.append(time.perf_counter())
        self.tokens += value.flatten().tolist()
        if len(self.times) > 1:
            self._show(complete=False)
            return
        if self.prompted:
            _write(self._decoded(self.tokens))
        self._shown = len(self.tokens)
        self._start = max(0, self._shown - _CONTEXT)

    def end(self) -> None:
        """Called by `generate` after the last token."""
        self._show(complete=True)
        _write("\n")

    def _show(self, complete: bool) -> None:
        known = self._decoded(self.tokens[self._start : self._shown])
        text = self._decoded(self.tokens[self._start :])
        unfinished = text.endswith("\N{REPLACEMENT CHARACTER}")
        if complete or not unfinished or len(self.tokens) - self._shown >= _LONGEST:
            _write(text[len(known) :])
            self._shown = len(self.tokens)
            self._start = max(0, self._shown - _CONTEXT)

    def _decoded(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _report(stream: TextStream, cache: Any) -> None:
    """Speed, and the cache's memory beside the dense one."""
    count = len(stream.times) - 1
    first = stream.times[min(1, count)] - stream.times[0]
    log.info("%d tokens, the first after %.3f s", count, first)
    if count > 1:
        log.info("%.1f tokens/s", (count - 1) / (stream.times[-1] - stream.times[1]))
    cache = getattr(cache, "self_attention_cache", cache)
    if hasattr(cache, "memory"):
        log.info("cache: %s", cache.memory())
        log.info("cache: %s", cache.memory(LONG))
