"""Kafka clients of other languages and CloudEvents SDKs against the decoder: ``make clients``."""
