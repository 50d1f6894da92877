CREATE TABLE receipts (number BIGINT PRIMARY KEY, id TEXT NOT NULL, receipt BLOB NOT NULL);
CREATE INDEX receipts_by_id ON receipts (id);
