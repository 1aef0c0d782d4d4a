"""The one Python file that travels with an exported student: the template's modules, joined."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from had.models.exporters import Target

MODULE = "modeling_had"
TEMPLATE = "had.models.template"
_WIDTH = 100

_HEAD = '''"""{base} with Hamming attention.

Queries and keys are one bit wide and the softmax sees the top N keys. Self-contained: it needs
{needs}. Load it with

    {auto}.from_pretrained(directory, trust_remote_code=True)

For one head, with b(x) = +1 where x >= 0 and -1 elsewhere:

    m_ts = number of equal bits of b(q_t) and b(k_s)                      0 .. head_dim
    s_ts = scale * sigma_q * sigma_k * (2 m_ts - head_dim) + bias_ts
    K_t  = the N allowed keys of row t with the largest s_ts, lowest index first among equals
    o_t  = sum over K_t of softmax(s_t restricted to K_t) * v_s

The method is Hamming Attention Distillation (arXiv 2502.01770). B batch, H query heads, G key/value
heads, T queries, S keys, D head_dim, V value_dim.
"""'''

_CLASSES = '''class Had{config}({config}):
    """The configuration of the model, and under `had` that of its attention."""

    model_type = "had-{model_type}"


class Had{base}(HammingModel, {base}):
    """{base} with Hamming attention."""

    config_class = Had{config}
'''


def source_file(target: Target) -> str:
    """The text of the modeling file."""
    sources = [_Source(_read(part)) for part in target.parts]
    own = ast.parse(f"from transformers import {target.config}, {target.base}").body
    imports = [each for source in sources for each in source.imports] + own
    values = {**asdict(target), "needs": ", ".join(target.packages)}
    head = f"{_HEAD.format(**values)}\n\n{_merged(imports)}"
    pieces = [head, *(source.body for source in sources), _CLASSES.format(**values)]
    return "\n\n\n".join(piece.strip("\n") for piece in pieces) + "\n"


def _read(part: str) -> str:
    spec = find_spec(f"{TEMPLATE}.{part}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


class _Source:
    """A module's text taken apart.

    Attributes:
        imports: the statements, without those of the template itself.
        body: everything after them.
    """

    def __init__(self, text: str) -> None:
        statements = ast.parse(text).body
        found = [each for each in statements if isinstance(each, ast.Import | ast.ImportFrom)]
        self.imports = [each for each in found if TEMPLATE not in ast.unparse(each)]
        last = max(each.end_lineno or 0 for each in found)
        self.body = "\n".join(text.splitlines()[last:])


def _merged(imports: Sequence[ast.stmt]) -> str:
    """Import statements in groups: the future, the standard library, all others."""
    plain, names = set(), defaultdict(set)
    for each in imports:
        if isinstance(each, ast.Import):
            plain |= {f"import {alias.name}" for alias in each.names}
        elif isinstance(each, ast.ImportFrom):
            names[each.module] |= {alias.name for alias in each.names}
    lines = [*sorted(plain), *(_from(str(each), names[each]) for each in sorted(names, key=str))]
    groups = [[line for line in lines if _rank(line) == rank] for rank in range(3)]
    return "\n\n".join("\n".join(group) for group in groups if group)


def _from(module: str, names: set[str]) -> str:
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {each}," for each in sorted(names)), ")"])


def _rank(line: str) -> int:
    package = line.split()[1].partition(".")[0]
    return 0 if package == "__future__" else 1 if package in sys.stdlib_module_names else 2
