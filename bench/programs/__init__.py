"""The programs that benchmarks start and measure."""
