"""Records of a partition become closed windows; no Kafka client, no Redis, no PyTorch, no clock."""
