"""Order only: which stage follows which, and the command that starts them. The one place that imports Prefect."""
