"""The TensorRT path on a GPU: what `docs/results/tensorrt.json` holds."""
