"""Decoding steps that `gpu_decode.py` measures: their shapes and their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from had.attention.backends import PackedCall
from had.attention.bits import pack_signs, unpack_signs


@dataclass(frozen=True)
class Case:
    """One decoding step.

    Attributes:
        batch: sequences.
        keys: cached tokens of each; with `mixed`, of the longest.
        n: keys a query keeps.
        heads: query heads.
        groups: key/value heads.
        width: of a head.
        mixed: sequences are 1/batch, 2/batch, ... of the longest, padded on the left.
        clustered: codes of keys drift and return, and queries are near some of them, instead of
            independent random bits.
        value_bytes: 1: values of the Hamming contender are stored as float8.
        codes: file with the signs of a student's queries and keys, of `student_codes.py`.
    """

    batch: int
    keys: int
    n: int
    heads: int = 32
    groups: int = 8
    width: int = 128
    mixed: bool = False
    clustered: bool = False
    value_bytes: int = 2
    codes: str = ""

    def floor_bytes(self) -> float:
        """What must be read: every real key's bits, and a value for every selected key."""
        bits = self.groups * self.keys * self.width / 8
        real = (self.batch + 1) / (2 * self.batch) if self.mixed else 1.0
        return self.batch * (real * bits + self.heads * self.n * self.width * self.value_bytes)

    def dense_bytes(self) -> float:
        return self.batch * self.groups * self.keys * self.width * 4.0

    def name(self) -> str:
        marks = [f"B={self.batch}", f"{self.keys // 1024}k", f"N={self.n}"]
        marks += [f"{self.heads}/{self.groups} heads", f"d={self.width}"]
        marks += ["mixed lengths"] * self.mixed + ["clustered"] * self.clustered
        marks += ["float8 values"] * (self.value_bytes == 1)
        return ", ".join(marks + ["codes of a student"] * bool(self.codes))


CASES = (
    Case(1, 2**12, 128),
    Case(1, 2**15, 512),
    Case(8, 2**15, 512),
    Case(1, 2**17, 512),
    Case(8, 2**17, 512),
    Case(1, 2**20, 10485),
    Case(8, 2**17, 512, clustered=True),
    Case(8, 2**17, 512, mixed=True),
    Case(8, 2**17, 512, value_bytes=1),
    Case(8, 2**15, 512, width=64),
    Case(1, 2**15, 512, groups=32),
    Case(8, 2**15, 512, groups=4),
)

TARGETS = CASES[:6]  # FlexAttention takes seconds to compile for a shape: here alone


@dataclass
class Inputs:
    """Tensors of one set."""

    query: Tensor
    key: Tensor
    value: Tensor
    packed: PackedCall


def make_inputs(case: Case, seed: int) -> Inputs:
    """Random tensors; the bits are the signs of the dense queries and keys."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)

    shape = (case.batch, case.groups, case.keys, case.width)
    query = normal(case.batch, case.heads, 1, case.width)
    key, value = normal(*shape), normal(*shape)
    if case.clustered:
        topics = normal(case.batch, case.groups, 64, case.width)
        drift = torch.arange(case.keys, device="cuda") // 512 * 37 % 64
        key += 0.7 * topics[:, :, drift]
        query += 0.7 * topics[:, :, :1].repeat_interleave(case.heads // case.groups, 1)
    if case.codes:
        query, key = (signs.to(query) for signs in read_codes(Path(case.codes), "cuda"))
        key = key.roll(seed * case.keys // 7, dims=2)  # every set has its own order
    mask = _left_padding(case) if case.mixed else None
    bits = torch.cat([pack_signs(part) for part in key.split(1)])
    stored = value.to(torch.float8_e4m3fn) if case.value_bytes == 1 else value
    gain = case.width**-0.5
    packed = PackedCall(pack_signs(query), bits, stored, case.width, case.n, gain, mask)
    return Inputs(query, key, value, packed)


def read_codes(path: Path, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Signs of a student's queries (B, H, 1, D) and keys (B, G, S, D), of one layer, -1 or +1.

    Args:
        path: what `student_codes.py` has written.
        device: where they are wanted.
    """
    codes = torch.load(path, weights_only=True)
    query, key = (unpack_signs(codes[x].to(device), codes["head_dim"]) for x in ("query", "key"))
    return query, key


def student_case(path: Path, n: int) -> Case:
    """One step with a student's codes."""
    codes = torch.load(path, weights_only=True, mmap=True)
    (batch, groups, keys, _), heads = codes["key"].shape, codes["query"].shape[1]
    return Case(batch, keys, n, heads, groups, codes["head_dim"], codes=str(path))


def _left_padding(case: Case) -> Tensor:
    """Sequence b of B has (b + 1) / B of the keys, the last ones."""
    lengths = torch.arange(1, case.batch + 1, device="cuda") * case.keys // case.batch
    first = (case.keys - lengths)[:, None]
    return (torch.arange(case.keys, device="cuda") >= first)[:, None, None, :]
