//! Kernel libraries and code objects made here, whole and broken, through the public interface.

mod fixture;

use accuracy_core::codeobject::{Argument, Contents, Form, Packing, ReadError, Target, read};
use fixture::*;
use proptest::prelude::*;
use rmpv::Value;

fn whole(bytes: &[u8]) -> Contents {
    read(bytes).unwrap_or_else(|error| panic!("{error}"))
}

/// The error of a file, and what it says.
fn broken(bytes: &[u8]) -> (ReadError, String) {
    match read(bytes) {
        Ok(contents) => panic!("read as {contents:?}"),
        Err(error) => (error.innermost().clone(), error.to_string()),
    }
}

fn targets(contents: &Contents) -> Vec<String> {
    contents.code_objects.iter().map(|c| c.target.to_string()).collect()
}

#[test]
fn a_bare_code_object_tells_its_target_and_its_kernels() {
    let contents = whole(&scale("gfx950"));
    assert_eq!((contents.form, contents.host), (Form::CodeObject, None));
    let [code_object] = &contents.code_objects[..] else { panic!() };
    assert_eq!(code_object.target.to_string(), "gfx950");
    assert_eq!((code_object.packing, code_object.version), (Packing::Bare, Some(6)));
    let [kernel] = &code_object.kernels.as_ref().unwrap()[..] else { panic!() };
    assert_eq!((kernel.name.as_str(), kernel.symbol.as_str()), ("scale", "scale.kd"));
    assert_eq!(kernel.kernarg_size, 20);
    assert_eq!((kernel.shared_size, kernel.vgprs, kernel.agprs), (Some(17408), Some(72), None));
    assert_eq!(kernel.wavefront_size, Some(64));
    let argument = |offset, size, kind: &str, name: Option<&str>| Argument {
        offset,
        size,
        kind: kind.into(),
        name: name.map(str::to_owned),
        hidden: kind == "hidden_block_count_x",
    };
    let expected = [
        argument(0, 8, "global_buffer", Some("y")),
        argument(8, 4, "by_value", None),
        argument(16, 4, "hidden_block_count_x", None),
    ];
    assert_eq!(kernel.arguments, expected);
    assert_eq!(kernel.explicit().count(), 2);
}

#[test]
fn target_features_come_from_the_header() {
    for (flags, id) in [
        (0x54c, "gfx942"),
        (0x74c, "gfx942:xnack+"),
        (0x64c, "gfx942:xnack-"),
        (0xe4c, "gfx942:sramecc+:xnack-"),
        (0x05f, "gfx9-4-generic"),
    ] {
        let contents = whole(&code_object(flags, &metadata(id, vec![])).bytes());
        assert_eq!(targets(&contents), [id]);
    }
}

#[test]
fn a_library_holds_a_bundle_for_each_source() {
    let contents = whole(&hip_library());
    assert_eq!(contents.form, Form::Library);
    assert_eq!(targets(&contents), ["gfx942", "gfx950", "gfx942", "gfx950"]);
    assert!(contents.code_objects.iter().all(|c| c.packing == Packing::Bundle));
    let host = contents.host.unwrap();
    assert_eq!(host.machine, "x86_64");
    assert_eq!(host.soname.as_deref(), Some("libfixture.so.1"));
    assert_eq!(host.needed, ["libamdhip64.so.6", "libc.so.6"]);
    assert_eq!(host.launchers, ["add", "scale"]);
    assert_eq!(host.other_functions, ["_ZN5torch6launchEv"]);
}

#[test]
fn compressed_bundles_of_every_version_and_method_are_read_one_after_another() {
    for version in [1, 2, 3] {
        for (method, packing) in [(ZLIB, Packing::ZlibBundle), (ZSTD, Packing::ZstdBundle)] {
            let one = compressed(version, method, &bundle_of(&["gfx942"]));
            let other = compressed(version, method, &bundle_of(&["gfx950", "gfx942"]));
            // With and without padding between them: version 1 does not say where it ends.
            for padding in [0, 7, 4096] {
                let fatbin = [&one[..], &vec![0; padding], &other, &[0; 9]].concat();
                for contents in [whole(&hip_library_with(&fatbin)), whole(&fatbin)] {
                    assert_eq!(targets(&contents), ["gfx942", "gfx950", "gfx942"]);
                    assert!(contents.code_objects.iter().all(|c| c.packing == packing));
                    assert_eq!(contents.code_objects[0].size, scale("gfx942").len() as u64);
                }
            }
        }
    }
}

#[test]
fn plain_and_compressed_bundles_mix() {
    let fatbin = [bundle_of(&["gfx942"]), compressed(3, ZSTD, &bundle_of(&["gfx950"]))].concat();
    let packings: Vec<Packing> = whole(&fatbin).code_objects.iter().map(|c| c.packing).collect();
    assert_eq!(packings, [Packing::Bundle, Packing::ZstdBundle]);
}

#[test]
fn entry_names_of_other_compilers_are_understood() {
    for id in [
        "hip-amdgcn-amd-amdhsa-gfx942",
        "hipv4-amdgcn-amd-amdhsa--gfx942:xnack-",
        "hipv4-amdgcn-amd-amdhsa-unknown-gfx942",
    ] {
        assert_eq!(targets(&whole(&bundle(&[(id, scale("gfx942"))]))), ["gfx942"]);
    }
    let spirv = bundle(&[("hip-spirv64-amd-amdhsa--amdgcnspirv", b"\x03\x02\x23\x07".to_vec())]);
    assert_eq!(whole(&spirv).code_objects[0].target, Target::Spirv);
}

#[test]
fn nvidia_code_is_told_by_architecture() {
    let two = [fatbin(&[(2, 90), (1, 90)]), vec![0; 40], fatbin(&[(2, 100), (16, 100)])].concat();
    let imports = ["__cudaRegisterFatBinary"];
    let contents = whole(&library(&["scale"], &imports, &["libcudart.so.13"], &[(".nv_fatbin", &two)]));
    assert_eq!(targets(&contents), ["sm_90", "compute_90", "sm_100"]);
    assert_eq!(targets(&whole(&two)), ["sm_90", "compute_90", "sm_100"]);
    // As ptxas writes them: the capability in the low byte, since ABI version 8 in the second.
    assert_eq!(targets(&whole(&cubin(7, 0x005a_0d5a))), ["sm_90"]);
    assert_eq!(targets(&whole(&cubin(8, 0x0600_5a04))), ["sm_90"]);
    assert_eq!(targets(&whole(&cubin(8, 0x0600_6402))), ["sm_100"]);
}

#[test]
fn a_library_without_code_for_a_gpu_is_no_error() {
    let contents = whole(&library(&["scale"], &[], &["libc.so.6"], &[]));
    assert_eq!(contents.code_objects, []);
    assert_eq!(contents.host.unwrap().launchers, ["scale"]);
}

#[test]
fn each_kind_of_damage_has_its_own_message() {
    let gfx950 = metadata("gfx950", vec![]);
    let object = |change: &dyn Fn(&mut Elf)| {
        let mut elf = code_object(GFX950, &gfx950);
        change(&mut elf);
        elf.bytes()
    };
    let with_metadata = |value: &Value| code_object(GFX950, value).bytes();
    let entry = |code: Vec<u8>| bundle(&[("hipv4-amdgcn-amd-amdhsa--gfx950", code)]);
    let truncated = |bytes: Vec<u8>, by: usize| bytes[..bytes.len() - by].to_vec();
    let plain = bundle_of(&["gfx950"]);
    let packed = zstd::encode_all(&plain[..], 3).unwrap();
    let mut damaged = packed.clone();
    damaged[0] ^= 1;
    let claim = |claimed: u64| compressed_claiming(3, ZSTD, claimed, &packed);
    let mut outside = plain.clone();
    outside[32 + 24 + 30 + 8..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut many = plain.clone();
    many[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut overlapping = bundle(&[("hip-gfx942", scale("gfx942")), ("hip-gfx950", scale("gfx950"))]);
    overlapping.copy_within(32..40, 32 + 34);
    let registers = ["__hipRegisterFatBinary"];
    let kernel_without = |key: &str| {
        let Value::Map(mut entries) = kernel("scale", &[(None, 0, 8, "global_buffer")]) else { panic!() };
        entries.retain(|(k, _)| k.as_str() != Some(key));
        with_metadata(&metadata("gfx950", vec![Value::Map(entries)]))
    };
    let mut deep = Value::Nil;
    for _ in 0..100 {
        deep = Value::Array(vec![deep]);
    }

    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (b"\x93\x17random bytes".to_vec(), "begins with 93 17 72 61"),
        (b"[package]\nname".to_vec(), "begins with \"[package"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "a Git LFS pointer"),
        (b"!<arch>\nx".to_vec(), "a static library"),
        (truncated(hip_library(), 1), "cut short: the section table ends at byte"),
        (truncated(scale("gfx950"), 1), "cut short: the section table ends at byte"),
        (b"\x7fELF\x02\x01".to_vec(), "cut short: the ELF header"),
        (object(&|elf| elf.kind = 1), "an object file: link it"),
        (object(&|elf| elf.machine = 247), "ELF file for machine 247"),
        (object(&|elf| elf.abi = 0), "ABI version 0: too old"),
        (object(&|elf| elf.flags = 0x5fe), "processor number 0xfe"),
        (object(&|elf| elf.notes = None), "no AMDGPU metadata note"),
        (object(&|elf| elf.notes = Some(note(31, &msgpack(&gfx950)))), "no AMDGPU metadata note"),
        (object(&|elf| elf.notes = Some(note(32, b"\xc1"))), "damaged AMDGPU metadata"),
        (with_metadata(&Value::Nil), "the metadata is nil, not a map"),
        (with_metadata(&deep), "not msgpack: depth limit exceeded"),
        (with_metadata(&metadata("gfx942", vec![])), "amdhsa.target says gfx942, the ELF header gfx950"),
        (
            with_metadata(&map([("amdhsa.kernels", 5.into())])),
            "amdhsa.kernels of the metadata is a number, not a list",
        ),
        (with_metadata(&metadata("gfx950", vec![Value::from(1)])), "kernel 0 is a number, not a map"),
        (kernel_without(".name"), "kernel 0 has no .name"),
        (kernel_without(".symbol"), "kernel `scale` has no .symbol"),
        (kernel_without(".kernarg_segment_size"), "kernel `scale` has no .kernarg_segment_size"),
        (
            library(&["f"], &registers, &[], &[]),
            "registers a .hip_fatbin with its runtime but has no such section",
        ),
        (library(&["f"], &registers, &[], &[(".rocm_kpack_ref", b"x")]), "in a .kpack archive"),
        (hip_library_with(&[0; 64]), ".hip_fatbin is empty"),
        (hip_library_with(&[0, 0, 0, 9, 9]), ".hip_fatbin: byte 0x3: expected a bundle"),
        (entry(vec![]), "entry hipv4-amdgcn-amd-amdhsa--gfx950: damaged bundle: it is empty"),
        (entry(b"nonsense".to_vec()), "expected an ELF file, found \"nonsense\""),
        (entry(scale("gfx942")), "the bundle says gfx950, but the code object in it is for gfx942"),
        (entry(library(&[], &[], &[], &[])), "not a code object for an AMD GPU"),
        (bundle(&[("hip-unknown", vec![1])]), "`hip-unknown` names no AMD target"),
        (bundle(&[("hip-gfx950:fast+", vec![1])]), "feature `fast+`"),
        (truncated(plain.clone(), 1), "cut short: entry hipv4-amdgcn-amd-amdhsa--gfx950 ends at byte"),
        (outside, "cut short: entry hipv4-amdgcn-amd-amdhsa--gfx950 ends at byte 18446744073709551615"),
        (many, "cut short: the bundle's header"),
        (overlapping, "inside what comes before it"),
        (truncated(claim(plain.len() as u64), 1), "cut short: the compressed bundle"),
        (compressed(4, ZSTD, &plain), "compressed bundle of version 4"),
        (compressed(3, 9, &plain), "compressed by method 9"),
        (claim(u64::MAX), "claims 18446744073709551615 uncompressed"),
        (claim(10), "decompresses to 11 bytes, its header says 10"),
        (claim(plain.len() as u64 + 1), "its header says"),
        (compressed_claiming(3, ZSTD, plain.len() as u64, &damaged), "does not decompress"),
        (compressed_claiming(3, ZLIB, plain.len() as u64, &packed), "does not decompress"),
        (compressed(3, ZSTD, &compressed(3, ZSTD, &plain)), "expected __CLANG_OFFLOAD_BUNDLE__, found"),
        (truncated(fatbin(&[(2, 90)]), 1), "cut short: its body"),
    ];
    let mut seen = std::collections::HashSet::new();
    for (bytes, expected) in cases {
        let (error, text) = broken(&bytes);
        assert!(text.contains(expected), "expected `{expected}` in `{text}`");
        seen.insert(std::mem::discriminant(&error));
    }
    assert!(seen.len() >= 20, "{} kinds of errors", seen.len());
}

#[test]
fn every_truncation_is_an_error() {
    let files = [
        hip_library(),
        hip_library_with(&compressed(3, ZSTD, &bundle_of(&["gfx950"]))),
        scale("gfx942"),
        bundle_of(&["gfx942", "gfx950"]),
        compressed(1, ZLIB, &bundle_of(&["gfx950"])),
        compressed(2, ZSTD, &bundle_of(&["gfx950"])),
        fatbin(&[(2, 90), (1, 90)]),
    ];
    for file in files {
        whole(&file);
        for length in 0..file.len() {
            assert!(read(&file[..length]).is_err(), "cut to {length} of {} bytes", file.len());
        }
    }
}

/// A few kilobytes that would fill the memory of a reader that trusts them.
#[test]
fn absurd_claims_cost_no_memory() {
    let zeros = zstd::encode_all(&vec![0; 100 << 20][..], 3).unwrap();
    assert!(zeros.len() < 16 << 10);
    let (error, _) = broken(&compressed_claiming(3, ZSTD, 100 << 20, &zeros));
    assert!(matches!(error, ReadError::AbsurdSize { .. }), "{error}");
    let (error, _) = broken(&compressed_claiming(3, ZSTD, 1 << 20, &zeros));
    assert!(matches!(error, ReadError::DecompressedSize { .. }), "{error}");

    // Ten thousand symbols that share one name of a hundred kilobytes.
    let name = "x".repeat(100_000);
    let mut elf = library(&[&name], &[], &[], &[]);
    let symbols = elf.windows(6).position(|w| w == [1, 0, 0, 0, 0x12, 0]).unwrap();
    let symbol = elf[symbols..symbols + 24].to_vec();
    let table = u64::from_le_bytes(elf[40..48].try_into().unwrap()) as usize;
    let offset = elf.len() as u64;
    elf.extend(symbol.repeat(10_000));
    // The header of .dynsym is the third: its offset at byte 24, its size at 32.
    elf[table + 2 * 64 + 24..][..8].copy_from_slice(&offset.to_le_bytes());
    elf[table + 2 * 64 + 32..][..8].copy_from_slice(&240_000u64.to_le_bytes());
    let (_, text) = broken(&elf);
    assert!(text.contains("symbol names overlap"), "{text}");
}

#[test]
fn any_single_byte_may_be_wrong() {
    let file = hip_library_with(&bundle_of(&["gfx942"]));
    for at in 0..file.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= flip;
            // Whatever comes of it: what is read is no larger than what was there.
            if let Ok(contents) = read(&file) {
                assert!(contents.code_objects.iter().all(|c| c.size <= file.len() as u64), "byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_behind_a_magic_never_panic(
        magic in prop::sample::select(vec![
            &b"\x7fELF\x02\x01\x01"[..], b"CCOB\x02\0\x01\0", b"CCOB\x03\0\0\0", b"__CLANG_OFFLOAD_BUNDLE__", b"\x50\xed\x55\xba",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        let bytes = [magic, &rest].concat();
        if let Err(error) = read(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn arguments_are_read_as_written(
        arguments in prop::collection::vec(
            (prop::option::of("[a-z_]{1,9}"), 0u64..4096, 0u64..4096, "(by_value|global_buffer|hidden_[a-z]{1,9})"),
            0..40,
        ),
    ) {
        let borrowed: Vec<_> =
            arguments.iter().map(|(name, offset, size, kind)| (name.as_deref(), *offset, *size, kind.as_str())).collect();
        let file = code_object(GFX942, &metadata("gfx942", vec![kernel("k", &borrowed)])).bytes();
        let contents = read(&file).unwrap();
        let read = &contents.code_objects[0].kernels.as_ref().unwrap()[0].arguments;
        let expected: Vec<Argument> = arguments
            .into_iter()
            .map(|(name, offset, size, kind)| Argument { offset, size, name, hidden: kind.starts_with('h'), kind })
            .collect();
        prop_assert_eq!(read, &expected);
    }
}
