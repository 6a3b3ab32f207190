"""Backbones, the head, pretrained weights, saving and loading."""
