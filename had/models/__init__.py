"""Pretrained models: where they come from, how they are converted, saved and loaded again."""
