"""What a model is: where it comes from, how it is loaded, and where its family keeps what the mathematics needs."""
