"""What a program reports about itself: metrics, traces, health, the device."""
