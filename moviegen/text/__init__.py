"""The three text encoders (paper 3.1.4)."""
