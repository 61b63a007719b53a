//! AITER's own kernels: code objects for gfx942 and gfx950 out of its wheel, which `fetch.py` unpacks.
//!
//! A module for each family of kernels has their bindings and a launcher, which lays out arguments and grid as AITER's
//! launchers do. The chains are in `tests`.

use accuracy_core::Error;
use accuracy_core::library::LibraryError;

pub mod attention;
pub mod gemm;
pub mod moe;

/// What a launch of one of the wheel's kernels gave. Where the code object is missing, the error says how to get it.
pub(crate) fn launched(result: accuracy_core::Result<()>) -> accuracy_core::Result<()> {
    result.map_err(|error| match error {
        Error::Library(missing @ (LibraryError::NotFound { .. } | LibraryError::WrongArch { .. })) => {
            Error::msg(format!(
                "{missing}\n  AITER's code objects come from its wheel on PyPI: run `python3 examples/aiter/fetch.py`"
            ))
        }
        other => other,
    })
}
