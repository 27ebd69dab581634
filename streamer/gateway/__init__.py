"""Records come in by HTTP and WebSocket, from devices with a token."""
