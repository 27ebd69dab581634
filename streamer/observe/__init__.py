"""What a program tells of itself: metrics, traces, the device."""
