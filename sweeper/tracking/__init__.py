"""What does Weights & Biases show? Runs, tables and reports, from the store's records."""
