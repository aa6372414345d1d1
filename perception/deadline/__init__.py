"""The deadline loop: cameras × models against deadlines, with a defined answer to everything that goes wrong."""
