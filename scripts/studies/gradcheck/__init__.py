"""The gradient audit beside the checkers that people use today."""
