"""What does Weights & Biases show? Sent from the store's records."""
