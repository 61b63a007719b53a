//! What the targets for kernel libraries do with an input.

#[path = "../tests/codeobject/fixture.rs"]
mod fixture;

use accuracy_core::codeobject::{Contents, ReadError, read};
use fixture::*;

/// The first byte says what the rest is: `r` a whole file, `s` the section of a library, `v` or `z` a bundle that is
/// compressed first.
pub fn bundle(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    match kind {
        b'r' => check(rest),
        b's' => check(&hip_library_with(rest)),
        b'v' => check(&compressed(1, ZLIB, rest)),
        b'z' => check(&compressed(3, ZSTD, rest)),
        _ => {}
    }
}

/// An ELF file behind its magic: a library, a code object or a cubin.
pub fn elf(input: &[u8]) {
    check(&[b"\x7fELF\x02\x01\x01", input].concat());
}

/// The metadata of a code object.
pub fn metadata(input: &[u8]) {
    let notes = Some(note(32, input));
    let elf = Elf { machine: AMDGPU, kind: 3, abi: 4, flags: GFX950, sections: Vec::new(), notes };
    check(&elf.bytes());
}

/// An error is fine, if it says something; a panic is not. What is read is no larger than what could have been there.
fn check(bytes: &[u8]) {
    match read(bytes) {
        Ok(contents) => check_contents(&contents, bytes.len() as u64),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!matches!(error.innermost(), ReadError::In { .. }));
        }
    }
}

fn check_contents(contents: &Contents, length: u64) {
    let most = length * 1000;
    assert!(contents.code_objects.iter().map(|c| c.size).sum::<u64>() <= most);
    let kernels = contents.code_objects.iter().filter_map(|c| c.kernels.as_ref()).flatten();
    for kernel in kernels {
        assert!(kernel.arguments.len() as u64 <= most);
        assert_eq!(kernel.explicit().count(), kernel.arguments.iter().filter(|a| !a.hidden).count());
    }
    for code_object in &contents.code_objects {
        assert!(code_object.target.runs_on(&code_object.target) || code_object.kernels.is_none());
    }
}
