"""What will it cost? The plan of a sweep, the costs of its trials, and the simulator of its schedule."""
