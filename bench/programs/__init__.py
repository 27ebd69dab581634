"""The programs that benchmarks start and measure, each a process of its own."""
