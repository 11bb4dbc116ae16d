"""Scores of generators and of images."""
