"""Orders the work: Prefect flows, deployments, services, and the command line."""
