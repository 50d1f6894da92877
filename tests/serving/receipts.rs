//! Receipts, and who is named when an answer is not what it should be.
