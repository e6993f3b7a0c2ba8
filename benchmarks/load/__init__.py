"""What `benchmarks/serving.py` is made of: models, servers, wire forms, load, and figures."""
