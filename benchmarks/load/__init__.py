"""What `benchmarks/serving.py` and `benchmarks/beside.py` are made of: models, servers, wire forms, load, figures."""
