"""What runs on the road: frames in, results out, inside a budget of milliseconds."""
