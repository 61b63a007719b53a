//! Damaged and hostile dumps: an error, and no panic, for every one.

use std::fs;
use std::path::Path;

use accuracy_core::dumps::{DumpError, DumpSet};

use super::fuzz::archive;
use super::{folder, values};

/// Reads everything there is.
fn read(path: &Path) -> Result<usize, DumpError> {
    let set = DumpSet::open(path)?;
    for tensor in &set.tensors {
        let data = tensor.open()?;
        assert_eq!(values(&data).len(), data.panels(7).map(|rows| rows.len() * data.cols()).sum::<usize>());
        data.raw();
        data.compare(&data);
    }
    Ok(set.tensors.len())
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let target = tempfile::tempdir().unwrap();
    for (source, name) in [("pt/types.pt", "x.pt"), ("numpy/stored.npz", "x.npz"), ("numpy/f64.npy", "x.npy")]
    {
        let bytes = fs::read(folder().join(source)).unwrap();
        let path = target.path().join(name);
        for end in (0..bytes.len()).step_by(bytes.len().div_ceil(100)) {
            fs::write(&path, &bytes[..end]).unwrap();
            assert!(read(&path).is_err(), "{source} cut to {end} bytes");
        }
    }
}

#[test]
fn a_changed_byte_is_no_panic() {
    let target = tempfile::tempdir().unwrap();
    for (source, name) in [
        ("pt/nested.pt", "x.pt"),
        ("pt/zip64.pt", "x.pt"),
        ("numpy/deflated.npz", "x.npz"),
        ("numpy/f16.npy", "x.npy"),
    ] {
        let bytes = fs::read(folder().join(source)).unwrap();
        let path = target.path().join(name);
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(150)) {
            for flip in [0xff, 0x01, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                fs::write(&path, &changed).unwrap();
                let _ = read(&path);
            }
        }
    }
}

fn pickled(pickle: &[u8]) -> Result<usize, DumpError> {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("x.pt");
    fs::write(&path, archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24])])).unwrap();
    read(&path)
}

/// `{"x": tensor}` with these bytes of pickle as offset, shape and stride.
fn tensor(offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let storage =
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ";
    let head = b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n";
    [head, &storage[..], offset, shape, stride, b"\x89NtRs."].concat()
}

#[test]
fn a_tensor_must_lie_within_its_storage() {
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert_eq!(pickled(&tensor(b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86")).unwrap(), 1);
    // Nothing, of a shape and at a place that could not be.
    let nothing = tensor(
        huge,
        &[b"(", &b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x20"[..], b"K\x02K\x00t"].concat(),
        b"(K\x01K\x01K\x01t",
    );
    assert_eq!(pickled(&nothing).unwrap(), 1);
    for (what, pickle) in [
        ("one element too far", tensor(b"K\x01", b"K\x02K\x03\x86", b"K\x03K\x01\x86")),
        ("negative offset", tensor(b"J\xff\xff\xff\xff", b"K\x06\x85", b"K\x01\x85")),
        ("negative stride", tensor(b"K\x05", b"K\x06\x85", b"J\xff\xff\xff\xff\x85")),
        ("huge stride", tensor(b"K\x00", b"K\x02\x85", &[&huge[..], b"\x85"].concat())),
        ("huge shape", tensor(b"K\x00", &[&huge[..], &huge[..], b"\x86"].concat(), b"K\x00K\x00\x86")),
        ("a repeated byte", tensor(b"K\x00", b"J\x00\x00\x00\x7f\x85", b"K\x00\x85")),
        ("ranks that differ", tensor(b"K\x00", b"K\x02\x85", b"K\x03K\x01\x86")),
        ("text as a shape", tensor(b"K\x00", b"X\x01\x00\x00\x002\x85", b"K\x01\x85")),
    ] {
        assert!(matches!(pickled(&pickle), Err(DumpError::Damaged { .. })), "{what}: {:?}", pickled(&pickle));
    }
}

#[test]
fn pickles_that_nest_refer_to_themselves_or_multiply_end() {
    // A list in itself, beside nothing: no tensor.
    assert!(matches!(pickled(b"\x80\x02]q\x00h\x00a."), Err(DumpError::NoTensor { .. })));
    let mut deep = b"\x80\x02".to_vec();
    deep.extend([b']'; 5000]);
    deep.extend([b'a'; 4999]);
    deep.push(b'.');
    assert!(pickled(&deep).unwrap_err().to_string().contains("nested deeper"));
    // Each list holds the one before it ten times.
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for level in 1..30u8 {
        laughs.extend([b']', b'q', level, b'(']);
        laughs.extend([b'h', level - 1].repeat(10));
        laughs.push(b'e');
    }
    laughs.push(b'.');
    assert!(pickled(&laughs).unwrap_err().to_string().contains("more values"));
}

#[test]
fn pickles_that_no_pickler_writes_are_errors() {
    for (pickle, part) in [
        (&b""[..], "ends here"),
        (b"\x80\x02", "ends here"),
        (b"\x80\x09N.", "protocol 9"),
        (b"0.", "stack is empty"),
        (b"t.", "no mark"),
        (b"(\x85.", "stack is empty"),
        (b"h\x05.", "remembered"),
        (b"Na.", "stack is empty"),
        (b"NNa.", "plain value"),
        (b"X\xff\xff\xff\x7fabc.", "ends here"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "ends here"),
        (b"\xff.", "no opcode"),
        (b"\x82\x01.", "extension"),
        (b"(K\x01d.", "key without a value"),
        (b"Fx\n.", "no float"),
        (b"Ix\n.", "no integer"),
    ] {
        let error = pickled(pickle).unwrap_err().to_string();
        assert!(error.contains(part), "{pickle:?}: {error}");
    }
}

#[test]
fn a_manifest_that_disagrees_with_its_files_is_an_error() {
    let with = |change: &dyn Fn(String) -> String| {
        let target = tempfile::tempdir().unwrap();
        super::copy(&folder().join("accuracy-odd"), target.path());
        let path = target.path().join("accuracy_dump.rank3.jsonl");
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
        let set = DumpSet::open(target.path());
        set.map(|s| (s.unread.len(), s.notes)).map_err(|e| e.to_string())
    };
    let replaced = |from: &'static str, to: &'static str| with(&move |text| text.replacen(from, to, 1));
    for (from, to, part) in [
        ("\"f32\"", "\"f16\"", "should be f16"),
        ("[1, 2]", "[2, 1]", "should be f32 [2, 1]"),
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("\"file\": \"", "\"file\": \"../", "not inside"),
        ("\"kind\": \"input\"", "\"kind\": \"other\"", "line 2: unknown variant"),
        ("{\"dump\"", "{\"nothing\"", "line 1"),
    ] {
        let error = replaced(from, to).unwrap_err();
        assert!(error.contains(part), "{from} -> {to}: {error}");
    }
    // What a crash leaves: the last line half written, a file that never came.
    let (unread, notes) = with(&|text| text[..text.len() - 5].to_owned()).unwrap();
    assert_eq!(unread, 0);
    assert!(
        notes.len() == 2 && notes[0].contains("cut off") && notes[1].contains("step 1 was cut off"),
        "{notes:?}"
    );
    let (unread, _) = with(&|text| text.replace("rank3.step000001.000", "rank3.step000001.999")).unwrap();
    assert_eq!(unread, 6);
    let skipped = r#"{"skipped": {"step": 0, "call": 0, "module": "rope", "kind": "output", "slot": "", "reason": "complex"}}"#;
    let (unread, _) = with(&|text| text.replacen('\n', &format!("\n{skipped}\n"), 1)).unwrap();
    assert_eq!(unread, 1);
}
