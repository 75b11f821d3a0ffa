#!/usr/bin/env bash
# Run once by the postgres image on an empty volume: one account and one database for each of Airflow and MLflow.
set -euo pipefail

for name in airflow mlflow; do
  variable="${name^^}_DB_PASSWORD"
  psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="${!variable}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
