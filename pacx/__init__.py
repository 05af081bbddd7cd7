"""PaCX-MAE: a chest X-ray encoder that learns from paired ECGs and blood tests."""
