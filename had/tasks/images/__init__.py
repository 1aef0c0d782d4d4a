"""Image classification: sources of images, decoding, batches on the device, and the tasks."""
