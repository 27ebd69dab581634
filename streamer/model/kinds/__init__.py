"""What models do with each kind of payloads: cut to a window, collate, encode."""
