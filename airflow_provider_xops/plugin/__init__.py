"""What this package adds to Airflow's own web server: the lake's reports and records, for those signed in."""
