//! A block-scaled FP8 product on gfx950's matrix cores, of the package `kernels`: emulated, and beside it the loop that the
//! host's compiler makes of the same source.

use super::{compiled, median, run};
use accuracy_core::emulator::launch::Launch;
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::memory::Region;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;

/// Rows of X and of W, and the length of the sums: a down projection of DeepSeek-V3 for 64 tokens.
pub const SHAPE: [usize; 3] = [64, 7168, 2048];
/// Elements of K, and rows of W, that share a scale.
const GROUP: usize = 128;
/// Rows of the output in each direction that a workgroup computes.
const TILE: usize = 64;
/// `kE4m3fn` of the package's header.
const E4M3FN: i32 = 0;

/// The launcher of the package.
type Launcher = unsafe extern "C" fn(
    *mut u16,
    *const u8,
    *const f32,
    *const u8,
    *const f32,
    i32,
    i32,
    i32,
    i32,
    bool,
    *mut c_void,
) -> i32;

/// What is multiplied.
struct Operands {
    x: Vec<u8>,
    x_scales: Vec<f32>,
    w: Vec<u8>,
    w_scales: Vec<f32>,
}

impl Operands {
    fn new() -> Operands {
        let [m, n, k] = SHAPE;
        // Codes of finite numbers of both signs, and scales that differ from group to group.
        let codes =
            |len: usize, by: usize| (0..len).map(move |i| (i * by % 251 % 0x7e + i / 3 % 2 * 0x80) as u8);
        let scales = |len: usize| (0..len).map(|i| (1 + i % 7) as f32 / 4096.0).collect();
        Operands {
            x: codes(m * k, 37).collect(),
            x_scales: scales(m * k / GROUP),
            w: codes(n * k, 53).collect(),
            w_scales: scales(n / GROUP * k / GROUP),
        }
    }
}

/// Seconds of the emulated product with so many workers, and of the host's loop.
pub fn seconds(workers: &[usize]) -> (Vec<f64>, f64) {
    let operands = Operands::new();
    let ([m, n, _], launcher) = (SHAPE, host());
    let include = format!("-I{}", sources().display());
    let flags = ["-O3", "-std=c++17", "-D__AMDGCN_WAVEFRONT_SIZE=64", include.as_str()];
    let module = compiled("fp8.hip", &flags);
    let mut expected = vec![0_u16; m * n];
    let host = median(|| on_host(&launcher, &operands, &mut expected));
    let emulated = workers.iter().map(|workers| {
        let mut y = vec![u16::MAX; m * n];
        let seconds = median(|| emulate(&module, &operands, &mut y, *workers));
        compare(&y, &expected);
        seconds
    });
    (emulated.collect(), host)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src/hip")
}

fn emulate(module: &Module, operands: &Operands, y: &mut [u16], workers: usize) {
    let kernel = module.kernels.iter().find(|kernel| {
        let name = &kernel.described.name;
        name.contains("6E4m3fn") && name.contains("8RowMajor")
    });
    let region = |start: u64, bytes: usize, writable| Region { start, end: start + bytes as u64, writable };
    let Operands { x, x_scales, w, w_scales } = operands;
    let [x_at, w_at] = [x, w].map(|codes| codes.as_ptr().expose_provenance() as u64);
    let [xs_at, ws_at] = [x_scales, w_scales].map(|scales| scales.as_ptr().expose_provenance() as u64);
    let y_at = y.as_mut_ptr().expose_provenance() as u64;
    let regions = [
        region(y_at, 2 * y.len(), true),
        region(x_at, x.len(), false),
        region(xs_at, 4 * x_scales.len(), false),
        region(w_at, w.len(), false),
        region(ws_at, 4 * w_scales.len(), false),
    ];
    let [m, n, k] = SHAPE.map(|size| size as u64);
    let groups = k / GROUP as u64;
    // y, xq, the scales of X (pointer, rows, groups, whether they are column-major), wq, the scales of W, m and n, k.
    let arguments = [y_at, x_at, xs_at, groups << 32 | m, 0, w_at, ws_at, groups, n << 32 | m, k];
    let arguments: Vec<u8> = arguments.iter().flat_map(|word| word.to_le_bytes()).take(76).collect();
    let blocks = [SHAPE[0] / TILE, SHAPE[1] / TILE].map(|blocks| blocks as u32);
    let launch = Launch {
        arguments: &arguments,
        regions: &regions,
        workers,
        ..Launch::new(
            module,
            kernel.expect("the kernel is in the source"),
            [blocks[0], blocks[1], 1],
            [256, 1, 1],
        )
    };
    run(&launch, "the FP8 product");
}

/// The package's launcher, compiled for the host.
fn host() -> libloading::Library {
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("hip_host");
    let library = std::env::temp_dir().join(format!("emulator-bench-{}.so", std::process::id()));
    let status = Command::new("c++")
        .args(["-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=off", "-isystem"])
        .arg(headers)
        .args(["-x", "c++"])
        .arg(sources().join("gemm_a8w8_blockscale.hip"))
        .arg("-o")
        .arg(&library)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "c++ does not compile the kernel");
    // SAFETY: the library runs nothing when it is opened.
    let opened = unsafe { libloading::Library::new(&library) };
    let _ = std::fs::remove_file(&library);
    opened.unwrap_or_else(|error| panic!("{}: {error}", library.display()))
}

fn on_host(library: &libloading::Library, operands: &Operands, y: &mut [u16]) {
    let Operands { x, x_scales, w, w_scales } = operands;
    let [m, n, k] = SHAPE.map(|size| size as i32);
    // SAFETY: the type is that of the launcher, which fills `y` from buffers of the shape that is passed with them.
    let status = unsafe {
        let launcher: libloading::Symbol<Launcher> =
            library.get(b"gemm_a8w8_blockscale").expect("the launcher is exported");
        launcher(
            y.as_mut_ptr(),
            x.as_ptr(),
            x_scales.as_ptr(),
            w.as_ptr(),
            w_scales.as_ptr(),
            m,
            n,
            k,
            E4M3FN,
            false,
            null_mut(),
        )
    };
    assert_eq!(status, 0, "the host's launcher refuses the product");
}

/// Both have to be the same but for the order and the width of sums.
fn compare(found: &[u16], expected: &[u16]) {
    let value = |bits: &u16| f64::from(f32::from_bits(u32::from(*bits) << 16));
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let error =
        square(&mut found.iter().zip(expected).map(|(found, expected)| value(found) - value(expected)));
    let size = square(&mut expected.iter().map(value));
    assert!(error <= 1e-5 * size, "the emulated product is off by {} of its norm", (error / size).sqrt());
}
