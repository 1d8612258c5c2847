"""What computes graphs: onnxruntime on a processor or a GPU, OpenVINO, and which of them a job gets."""
