"""A package as ONNX and ``torch.export`` files that other programs run, checked and described."""
