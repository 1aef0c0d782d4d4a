"""What the server of `tests.forked` imports.

Not `had.cli`, which a program may be asked to run as its own.
"""

from had.lean_imports import lean_imports

with lean_imports():
    import transformers.models.bert.modeling_bert  # noqa: F401

    import had.evaluation
    import had.runner  # noqa: F401
