"""The code of an exported student, which knows nothing of this package: see `had.models.export`.

What it repeats of the package it repeats on purpose, in compact form; tests hold the two together.
`had.models.source_file` joins these modules into the one file that travels with the weights. They
may import torch, transformers and timm, and of this package each other alone.
"""
