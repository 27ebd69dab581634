"""Kinds of payloads: what a kind is (``kind``), a module for each, and the table of them (``table``).

Aligners import all of it, so it imports no PyTorch. It is below ``events``, which has the nouns that are made of kinds.
"""
