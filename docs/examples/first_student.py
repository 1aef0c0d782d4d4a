"""A student from Python: one-bit queries and keys in any transformers or timm model."""

import tempfile

# --8<-- [start:example]
import timm
import torch

import had

model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
batches = [{"pixel_values": torch.randn(8, 3, 32, 32)} for _ in range(4)]

student = had.binarize(model, n=8, binarization="had", calibration=batches)
logits = student(batches[0]["pixel_values"])  # Hamming attention from here on
# --8<-- [end:example]

with tempfile.TemporaryDirectory() as folder:
    had.save(student, folder)
    again = had.load_student(folder).eval()
    images = batches[0]["pixel_values"]
    with torch.no_grad():
        assert torch.equal(again(images), student.eval()(images))
