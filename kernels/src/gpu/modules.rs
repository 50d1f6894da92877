//! The files of kernels.

/// A source file of kernels, as it was when the binary was built.
#[derive(Debug)]
pub struct ModuleSource {
    /// Its name, without `.cu`.
    pub module: &'static str,
    /// Its content.
    pub text: &'static str,
    /// Names and texts of the files that it includes.
    pub headers: &'static [(&'static str, &'static str)],
}
