//! What the fuzz targets do with an input. `tests/fuzzed.rs` does the same with the inputs that are kept.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use accuracy_core::weights::{Carve, Checkpoint, NewTensor, StDtype, write};
use serde_json::Value;

/// Data that a header may ask for.
const MOST_DATA: u64 = 1 << 16;

const DEEPSEEK: &str = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2],
    "scale_fmt": "ue8m0"}, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 4}"#;
const GPTQ: &str = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8}}"#;

/// The first byte says what the rest is: `r` a whole file; `h`, `d`, `g` a header, to which as much data is added
/// as it asks for, without a configuration or beside one of DeepSeek or GPTQ; `i` an index over a good shard.
pub fn safetensors(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let folder = folder();
    let (file, config) = match kind {
        b'r' => (rest.to_vec(), ""),
        b'h' => (with_data(rest), ""),
        b'd' => (with_data(rest), DEEPSEEK),
        b'g' => (with_data(rest), GPTQ),
        b'i' => {
            good_shard(&folder.join("a.safetensors"));
            fs::write(folder.join("model.safetensors.index.json"), rest).unwrap();
            read(&folder.join("model.safetensors.index.json"));
            return;
        }
        _ => return,
    };
    let path = folder.join("model.safetensors");
    fs::write(&path, file).unwrap();
    fs::write(folder.join("config.json"), if config.is_empty() { "{}" } else { config }).unwrap();
    read(&path);
}

/// The first byte says which file the rest is: `c` `config.json`, `m` ModelOpt's `hf_quant_config.json`.
pub fn config(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let folder = folder();
    let path = folder.join("model.safetensors");
    if !path.exists() {
        good_shard(&path);
    }
    let (config, modelopt): (&[u8], &[u8]) = match kind {
        b'c' => (rest, b"{\"quant_algo\": \"NVFP4\"}"),
        b'm' => (b"{}", rest),
        _ => return,
    };
    fs::write(folder.join("config.json"), config).unwrap();
    fs::write(folder.join("hf_quant_config.json"), modelopt).unwrap();
    read(&path);
}

/// The bytes as a GGUF file, behind its magic.
pub fn gguf(input: &[u8]) {
    let path = folder().join("model.gguf");
    fs::write(&path, [b"GGUF", input].concat()).unwrap();
    read(&path);
}

/// Everything that can be read of a checkpoint is read; an error is fine, a panic is not.
fn read(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    for name in checkpoint.names() {
        let _ = checkpoint.raw(name);
        let _ = checkpoint.vector(name);
    }
    let _ = checkpoint.orphans();
    let _ = checkpoint.matches("{a}.{b}");
    let modules: Vec<&str> = checkpoint.modules().into_iter().chain(checkpoint.names()).collect();
    for module in modules {
        carve(&checkpoint, module);
        for part in ["", "#0", "#1.up", "#gate", "#k", "#2..4"] {
            let address = format!("{module}{part}");
            let described = checkpoint.describe(&address);
            let Ok(weight) = checkpoint.linear(&address) else { continue };
            let described = described.unwrap_or_else(|e| panic!("{address} is read but not described: {e}"));
            assert_eq!((described.scheme, described.dtype), (weight.scheme, weight.dtype), "{address}");
            let count = weight.rows * weight.cols;
            assert_eq!(weight.values().len(), count, "{address}");
            assert_eq!(weight.codes.len(), weight.dtype.packed_len(count), "{address}");
            if let Ok(sorted) = weight.in_group_order() {
                assert_eq!(sorted.codes.len(), weight.codes.len(), "{address}");
            }
            let (rows, cols) = weight.grid();
            assert!(weight.scales.is_empty() || weight.scales.len() == rows * cols, "{address}");
            if let Ok(fnuz) = weight.to_fnuz() {
                assert!(fnuz.to_fnuz().is_err(), "{address} is converted twice");
            }
        }
    }
}

/// What is carved is as large as its shape says.
fn carve(checkpoint: &Checkpoint, module: &str) {
    let experts = checkpoint.describe(module).is_ok_and(|info| info.experts.is_some()).then_some(0..1);
    for (rows, columns) in [(None, None), (Some(0..8), None), (Some(2..4), Some(0..2)), (None, Some(8..16))] {
        let Ok(tensors) = checkpoint.carve(module, &Carve { experts: experts.clone(), rows, columns }) else {
            continue;
        };
        for tensor in tensors {
            let bits = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize();
            assert_eq!(tensor.bytes.len() * 8, bits, "{} carved from {module}", tensor.name);
        }
    }
}

/// A folder of this thread's own, in memory where the system has a place for that.
fn folder() -> PathBuf {
    thread_local!(static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() });
    let memory = Path::new("/dev/shm");
    let create = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    FOLDER.with(|folder| folder.get_or_init(|| create().unwrap()).path().to_owned())
}

/// A file with that header and the data it speaks of, unless that is too much.
fn with_data(header: &[u8]) -> Vec<u8> {
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let end = |tensor: &Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let ends = parsed.as_object().into_iter().flat_map(|o| o.values()).filter_map(end);
    let length = ends.max().filter(|&n| n <= MOST_DATA).unwrap_or(0);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend((0..length).map(|i| (i * 37) as u8));
    file
}

/// One weight for each way in which a weight is stored.
fn good_shard(path: &Path) {
    let mut tensors = Vec::new();
    let mut add = |name: &str, dtype: StDtype, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        // As powers of two in f32, f16 and e8m0, positive and finite.
        let bytes = (0..bytes).map(|i| if i % 4 == 3 { 0x3f } else { 0 }).collect();
        tensors.push(NewTensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes });
    };
    add("fp8.weight", StDtype::F8_E4M3, &[4, 6]);
    add("fp8.weight_scale_inv", StDtype::F32, &[2, 3]);
    add("channel.weight", StDtype::F8_E4M3, &[4, 6]);
    add("channel.weight_scale", StDtype::F32, &[4, 1]);
    add("int8.weight", StDtype::I8, &[4, 6]);
    add("int8.weight_scale", StDtype::F32, &[1]);
    add("int8.weight_zero_point", StDtype::I8, &[1]);
    add("mx.weight", StDtype::U8, &[2, 32]);
    add("mx.weight_scale", StDtype::U8, &[2, 2]);
    add("mx8.weight", StDtype::F8_E5M2, &[2, 64]);
    add("mx8.weight_scale", StDtype::F8_E8M0, &[2, 2]);
    add("nv.weight", StDtype::U8, &[2, 16]);
    add("nv.weight_scale", StDtype::F8_E4M3, &[2, 2]);
    add("nv.weight_scale_2", StDtype::F32, &[]);
    add("nv.input_global_scale", StDtype::F32, &[1]);
    add("mx4.weight", StDtype::I8, &[2, 16]);
    add("mx4.scale", StDtype::F8_E8M0, &[2, 1]);
    add("experts_blocks", StDtype::U8, &[2, 4, 1, 16]);
    add("experts_scales", StDtype::U8, &[2, 4, 1]);
    add("packed.weight_packed", StDtype::I32, &[8, 4]);
    add("packed.weight_scale", StDtype::BF16, &[8, 2]);
    add("packed.weight_zero_point", StDtype::I32, &[1, 2]);
    add("gptq.qweight", StDtype::I32, &[4, 8]);
    add("gptq.qzeros", StDtype::I32, &[2, 1]);
    add("gptq.scales", StDtype::F16, &[2, 8]);
    add("awq.qweight", StDtype::I32, &[32, 1]);
    add("awq.qzeros", StDtype::I32, &[2, 1]);
    add("awq.scales", StDtype::F16, &[2, 8]);
    add("qkv.weight", StDtype::BF16, &[8, 4]);
    add("rows4.weight", StDtype::U8, &[4, 16]);
    add("rows4.weight_scale", StDtype::F32, &[8, 1]);
    add("rows4.pre_quant_scale", StDtype::F32, &[16]);
    add("quark.weight", StDtype::I32, &[16, 1]);
    add("quark.weight_scale", StDtype::F32, &[1, 8]);
    add("rows8.weight", StDtype::I8, &[4, 6]);
    add("rows8.SCB", StDtype::F32, &[4]);
    add("static.weight", StDtype::F8_E4M3, &[4, 6]);
    add("static.qscale_weight", StDtype::F32, &[]);
    add("static.qscale_act", StDtype::F32, &[]);
    add("rotated.weight", StDtype::BF16, &[4, 4]);
    add("rotated.R4_input.weight", StDtype::BF16, &[4, 4]);
    add("stages.weight", StDtype::I32, &[8, 1]);
    add("stages.weight_scale", StDtype::F32, &[]);
    add("stages.weight_scale_2", StDtype::F32, &[8]);
    add("ao4._weight_qdata", StDtype::I8, &[4, 8]);
    add("ao4._weight_scale", StDtype::BF16, &[1, 4]);
    add("ao4._weight_zero_point", StDtype::BF16, &[1, 4]);
    add("aomx._weight_qdata", StDtype::U8, &[4, 32]);
    add("aomx._weight_scale", StDtype::F8_E8M0, &[32, 16]);
    add("aqlm.codebooks", StDtype::F16, &[1, 2]);
    add("aqlm.codes", StDtype::I8, &[2, 2]);
    let bytes = |name: &str, dtype, shape: &[usize], bytes: &[u8]| NewTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.to_vec(),
    };
    let shape = [2i64, 16].map(i64::to_le_bytes).concat();
    tensors.push(bytes("sparse.compressed", StDtype::F8_E4M3, &[2, 8], &[0x38; 16]));
    tensors.push(bytes("sparse.bitmask", StDtype::U8, &[2, 2], &[0x33; 4]));
    tensors.push(bytes("sparse.shape", StDtype::I64, &[2], &shape));
    tensors.push(bytes("sparse.weight_scale", StDtype::F32, &[2, 1], &[0x3f; 8]));
    tensors.push(bytes("hqq.W_q", StDtype::U8, &[1, 16], &[0x21; 16]));
    tensors.push(bytes("hqq.scale", StDtype::F16, &[2, 1], &[0x3c; 4]));
    tensors.push(bytes("hqq.zero", StDtype::F16, &[2, 1], &[0x3c; 4]));
    tensors.push(bytes("hqq.shape", StDtype::I64, &[2], &shape));
    let state = br#"{"quant_type": "nf4", "blocksize": 16, "shape": [2, 16]}"#;
    tensors.push(bytes("nf4.weight", StDtype::U8, &[16, 1], &[0x12; 16]));
    tensors.push(bytes("nf4.weight.absmax", StDtype::F32, &[2], &[0x3f; 8]));
    tensors.push(bytes("nf4.weight.quant_map", StDtype::F32, &[16], &[0x3f; 64]));
    tensors.push(bytes("nf4.weight.quant_state.bitsandbytes__nf4", StDtype::U8, &[state.len()], state));
    let int4 = r#"{"_type": "Int4Tensor", "_data": {"block_size": [1, 16]}}"#;
    let tiles = r#"{"_type": "MXTensor", "_data": {"is_swizzled_scales": true, "elem_dtype": {"_data": "float4_e2m1fn_x2"}}}"#;
    let metadata = [("ao4.weight", int4), ("aomx.weight", tiles)].map(|(a, b)| (a.to_owned(), b.to_owned()));
    write(path, &tensors, &BTreeMap::from(metadata)).unwrap();
}
