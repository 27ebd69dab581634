"""Pretrained networks that ship in packages: found, checked against their hashes, and run."""
