#!/bin/sh
# Runs once, when PostgreSQL's volume is empty: a database and a role of its own for each of the two.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" \
    --set studio="$LABEL_STUDIO_DB_PASSWORD" --set preceptor="$PRECEPTOR_DB_PASSWORD" <<'SQL'
CREATE ROLE label_studio LOGIN PASSWORD :'studio';
CREATE DATABASE label_studio OWNER label_studio;
CREATE ROLE preceptor LOGIN PASSWORD :'preceptor';
CREATE DATABASE preceptor OWNER preceptor;
REVOKE CONNECT ON DATABASE label_studio, preceptor FROM PUBLIC;
SQL
