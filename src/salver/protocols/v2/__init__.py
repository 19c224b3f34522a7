"""The Open Inference Protocol V2: over REST in JSON and with binary tensors, and over gRPC."""
