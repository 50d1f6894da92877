-- Ledgers and orders of jobs are others than before: nothing of earlier jobs can be read, and stores
-- that have some are refused. Claims name their attempt, and those of attempts that are void stay
-- for the proof.
DELETE FROM events;

DROP TABLE claims;

CREATE TABLE claims (
    job BLOB NOT NULL,
    step BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    claims BLOB NOT NULL,
    PRIMARY KEY (job, step)
);

CREATE TABLE IF NOT EXISTS voided (
    job BLOB NOT NULL,
    attempt BIGINT NOT NULL,
    claims BLOB NOT NULL,
    PRIMARY KEY (job, attempt)
);
