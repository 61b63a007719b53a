//! Names of C++ functions as a person reads them.

/// `ns::kernel<4>` of `_ZN2ns6kernelILi4EEEvPf`: without parameters and result. A name that is no C++ symbol stays as it is.
pub fn readable(name: &str) -> String {
    let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
    cpp_demangle::Symbol::new(name)
        .ok()
        .and_then(|symbol| symbol.demangle_with_options(&options).ok())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable() {
        assert_eq!(readable("_ZN12_GLOBAL__N_14gemmILb1EEEvPfi"), "(anonymous namespace)::gemm<true>");
        assert_eq!(readable("_Z9quantPf"), "_Z9quantPf");
        assert_eq!(readable("_Z5quantPf"), "quant");
        assert_eq!(readable("matmul_kernel"), "matmul_kernel");
    }
}
