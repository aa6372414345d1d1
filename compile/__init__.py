"""A float ONNX model in, an engine package for one profile out."""
