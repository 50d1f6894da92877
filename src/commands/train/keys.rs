//! The keys of a job file, printed.

use crate::support::job_file;
use crate::support::output::Output;

/// Prints the keys of a job file, for people or as a schema.
pub fn print(as_schema: bool, output: &Output) {
    if as_schema {
        let schema = job_file::schema::schema();
        output.result(&format!("{schema:#}"), &schema);
    } else {
        job_file::help::print(output);
    }
}
