"""Kinds of payloads: what differs between images, sounds, words and measurements, a module for each.

Aligners import all of it, so it imports no PyTorch. It is below ``events``, which has the nouns that are made of kinds.
``kind`` says what a kind is, ``table`` which there are, and how to add one.
"""
