"""Every client of Kafka and Redis is made here: addresses, identity, TLS, and the error if that fails."""
