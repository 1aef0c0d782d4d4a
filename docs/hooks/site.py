"""What the site adds to MkDocs: equations, and a place in the navigation for every page.

Equations are MathML, which browsers draw themselves: no script, no network. A fence called `math`
holds LaTeX, which also GitHub shows.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Teach the fences of Markdown what an equation is, and complete the navigation."""
    fence = {"name": "math", "class": "equation", "format": equation}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    listed = {page for entry in config.nav or [] for page in entry.values()}
    pages = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    config.nav = [*(config.nav or []), *(page for page in pages if page not in listed)]
    return config


def equation(
    source: str, language: str, css_class: str, options: dict[str, Any], md: object, **others: Any
) -> str:
    """One equation a line, or one environment, as display MathML."""
    lines = [source] if r"\begin" in source else source.splitlines()
    drawn = [convert(line, display="block") for line in lines if line.strip()]
    return f'<div class="{css_class}" title="{escape(source, quote=True)}">{"".join(drawn)}</div>'
