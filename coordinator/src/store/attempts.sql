-- Ledgers name attempts, and orders of jobs auditors: nothing of earlier jobs can be read.
DELETE FROM events;
