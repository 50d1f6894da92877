//! The files of kernels.

/// A file of kernels, as it was when this was built.
#[derive(Debug)]
pub struct ModuleSource {
    /// Its name, without `.cu`.
    pub module: &'static str,
    /// What it says.
    pub text: &'static str,
    /// Names and texts of the files that it includes.
    pub headers: &'static [(&'static str, &'static str)],
}
