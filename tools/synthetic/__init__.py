"""Parts of make_synthetic.py: a model of a public shape with random weights, written straight into ONNX."""
