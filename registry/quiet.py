"""Third parties' reporting, switched off in every process of Everfit. Free of imports: every door needs it first."""

QUIET = {
    "DO_NOT_TRACK": "true",  # MLflow honours the literal "true" only
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Environment variables and their values."""
