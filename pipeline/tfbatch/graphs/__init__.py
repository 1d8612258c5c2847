"""What lies in a bundle, read without any runtime: the manifest, ONNX files, what a processor or a pooling says."""
