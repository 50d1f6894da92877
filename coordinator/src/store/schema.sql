CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE jobs (
    job BLOB PRIMARY KEY, number BIGINT NOT NULL, submission BLOB NOT NULL, progress BLOB NOT NULL);
CREATE TABLE records (
    job BLOB NOT NULL, step BIGINT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (job, step));
CREATE TABLE claims (
    job BLOB NOT NULL, step BIGINT NOT NULL, claims BLOB NOT NULL, PRIMARY KEY (job, step));
CREATE TABLE ledger (
    job BLOB NOT NULL, number BIGINT NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (job, number));
CREATE TABLE plans (
    job BLOB NOT NULL, epoch BIGINT NOT NULL, plan BLOB NOT NULL, PRIMARY KEY (job, epoch));
CREATE TABLE checkpoints (
    job BLOB NOT NULL, step BIGINT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (job, step));
CREATE TABLE audits (
    job BLOB NOT NULL, number BIGINT NOT NULL, audit BLOB NOT NULL, PRIMARY KEY (job, number));
CREATE TABLE events (
    job BLOB NOT NULL, number BIGINT NOT NULL, event BLOB NOT NULL, PRIMARY KEY (job, number));
CREATE TABLE members (id BLOB PRIMARY KEY, member BLOB NOT NULL);
CREATE TABLE convicted (id BLOB PRIMARY KEY, offence BLOB NOT NULL);
