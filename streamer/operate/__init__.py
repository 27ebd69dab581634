"""What an operator asks: doctor, size, the settings' reference."""
