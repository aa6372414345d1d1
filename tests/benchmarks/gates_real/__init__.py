"""Real models on real recordings at the default policy: which gates each package passes."""
