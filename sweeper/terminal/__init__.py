"""What is running? Progress and status in the terminal."""
