"""What is running? Shown in the terminal while it runs."""
