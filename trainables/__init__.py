"""What one trial does: networks, objectives, data, the training loop and its scores. No Ray, no W&B."""
