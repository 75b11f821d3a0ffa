#!/usr/bin/env bash
# Prepares the stack once: Airflow's tables, its first administrator, the lake. Every step can run again.
set -euo pipefail

airflow db migrate

# `users create` ends with 0 when the user exists already, and then leaves the password as it is.
airflow users create --role Admin --username "$AIRFLOW_ADMIN_USER" --password "$AIRFLOW_ADMIN_PASSWORD" \
  --email admin@localhost --firstname XOps --lastname Administrator

xops lake init "$XOPS_LAKE_URI"
