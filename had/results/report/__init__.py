"""A report on runs: sections of text, tables and figures, as an HTML page and as Markdown."""
