"""What runs next? Computed from the store's records alone: no Ray, no clock, no I/O."""
