"""The phantom hospital: made-up patients whose X-rays, ECGs and blood tests share known causes."""
