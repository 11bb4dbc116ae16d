"""What runs next? Decided from the store's records alone: no Ray, no clock, no I/O of its own."""
