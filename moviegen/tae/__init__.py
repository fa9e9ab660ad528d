"""Temporal Autoencoder (paper 3.1.1): 8x8x8 compression into 16 channels."""
