"""The files of a bundle, read without any runtime: the manifest, ONNX, what a processor or a pooling says."""
