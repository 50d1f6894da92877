//! Broken and hostile files: refused with file, tensor and cause, and never a panic.
