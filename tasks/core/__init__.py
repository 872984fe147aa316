"""Contracts that every stage and the server share: no torch, transformers, prefect, mlflow, pandas or great_expectations."""
