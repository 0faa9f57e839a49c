"""The engine of a plain ONNX model: images, texts or tensors in, labels, boxes, vectors or tensors out."""
