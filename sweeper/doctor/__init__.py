"""What is here, and what would stop a run?"""
