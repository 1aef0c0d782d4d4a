"""Distil a transformer into a Hamming-attention student; `python train.py --help` says how."""

import sys
from pathlib import Path

from had.cli import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:], config_path=str(Path(__file__).resolve().with_name("conf"))))
