"""What a judgement looks like to people: one HTML page that opens without a network."""
