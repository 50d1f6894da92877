-- Who has submitted a job: the canonical list of keys. Jobs from before have nobody.
ALTER TABLE jobs ADD COLUMN submitters BLOB NOT NULL DEFAULT x'00000000';
