"""What a prediction costs, beside what it costs elsewhere: `make bench`."""
