"""The offline retraining job: tables in, one published release out."""
