//! The proof of a job, in files, and its verification by anyone who has them.
