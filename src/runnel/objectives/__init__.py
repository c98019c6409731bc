"""One training loss a file; every file has `loss(model, batch) -> Tensor`, a mean in nats per target."""
