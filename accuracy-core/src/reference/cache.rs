//! Products of stored weights, kept between the runs and the cases that share them.
//!
//! The cases of a matrix differ in paths, parameters and layouts, but most multiply the same activations by the same
//! weight. A product is looked up by what it is computed from: a 128-bit hash (XXH3) of all codes, scales and zero
//! points, all activations, the precision, and the sources of the code that multiplies. Nothing is looked up by a name or
//! a time, so there is nothing to invalidate; a product that is read back is checked against its own hash, and some
//! outputs of it against exact dot products, as those of a product that was just computed.
//!
//! Entries are files in the folder that [`use_folder`] is given, at most [`LIMIT`] bytes of them: those that were not
//! used for longest go first. A folder that cannot be written or read is no error: products are then computed.

use super::Matrix;
use super::stream::{Left, Precision, Product, ReferenceError, Weight};
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use twox_hash::XxHash3_128;

/// Bytes that a folder's entries may have in all.
pub const LIMIT: u64 = 512 << 20;
/// Multiply-adds below which a product is computed sooner than it is looked up.
const LARGE: usize = 1 << 28;
/// Outputs of a product read back that are held against exact dot products.
const SAMPLES: usize = 32;
/// What the entries' names end in.
const SUFFIX: &str = "product";
/// The code that a product comes from: other code, other entries.
const SOURCES: [&str; 4] = [
    include_str!("cache.rs"),
    include_str!("stream/mod.rs"),
    include_str!("stream/decode.rs"),
    include_str!("stream/tile.rs"),
];

static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Keeps products in `folder` from now on, or none with `None`; the first call counts.
pub fn use_folder(folder: Option<PathBuf>) {
    FOLDER.get_or_init(|| folder);
}

/// `x · Wᵀ`, in float32 blocks where [`Precision::Single`] is asked for and has the range; looked up where it is large
/// and somebody has computed it.
///
/// # Panics
/// As [`Left::times`].
pub fn product(x: &Matrix, weight: &Weight<'_>, precision: Precision) -> Product {
    let folder = FOLDER.get().and_then(Option::as_deref);
    match folder.filter(|_| x.rows * weight.rows * weight.cols >= LARGE) {
        Some(folder) => product_in(folder, LIMIT, x, weight, precision),
        None => compute(x, weight, precision),
    }
}

fn compute(x: &Matrix, weight: &Weight<'_>, precision: Precision) -> Product {
    let left = Left::new(x, precision);
    match left.suits(weight) {
        true => left.product(weight),
        false => Left::new(x, Precision::Double).product(weight),
    }
}

fn product_in(folder: &Path, limit: u64, x: &Matrix, weight: &Weight<'_>, precision: Precision) -> Product {
    let key = key(x, weight, precision);
    let path = folder.join(format!("{key:032x}.{SUFFIX}"));
    if let Some(known) = read(&path, key, (x.rows, weight.rows)).filter(|known| keeps_to(known, x, weight)) {
        // What was used last goes last.
        if let Ok(file) = File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        return known;
    }
    let product = compute(x, weight, precision);
    let _ = write(folder, limit, &path, key, &product);
    product
}

/// Of everything that a product is computed from.
fn key(x: &Matrix, weight: &Weight<'_>, precision: Precision) -> u128 {
    let Weight { rows, cols, dtype, codes, granularity, scales, zeros, global, column_groups, magnitudes } =
        weight;
    let shapes = format!(
        "{precision:?} {} {} {rows} {cols} {dtype:?} {granularity:?} {global:?} {magnitudes} {} {} {:?} {:?}",
        x.rows,
        x.cols,
        scales.len(),
        zeros.len(),
        column_groups,
        crate::simd::Isa::best(),
    );
    let values: Vec<u8> = decoded(*dtype).collect();
    let mut parts = vec![XxHash3_128::oneshot(shapes.as_bytes()), XxHash3_128::oneshot(&values)];
    parts.extend(SOURCES.map(|source| XxHash3_128::oneshot(source.as_bytes())));
    parts.extend([codes, bytes_of(scales), bytes_of(zeros), bytes_of(&x.data)].map(hash));
    hash_of(&parts)
}

/// What the codes of a format stand for, of formats that a table decodes.
fn decoded(dtype: crate::dtype::DType) -> impl Iterator<Item = u8> {
    let codes = if dtype.bits() <= 8 { 0..1_u32 << dtype.bits() } else { 0..0 };
    codes.flat_map(move |code| dtype.decode(code).to_bits().to_le_bytes())
}

/// By pieces, on all cores.
fn hash(bytes: &[u8]) -> u128 {
    let parts: Vec<u128> = bytes.par_chunks(1 << 20).map(XxHash3_128::oneshot).collect();
    hash_of(&parts)
}

fn hash_of(parts: &[u128]) -> u128 {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    XxHash3_128::oneshot(&bytes)
}

fn bytes_of(values: &[f64]) -> &[u8] {
    // SAFETY: a float64 is eight bytes, each of which may be read.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut(values: &mut [f64]) -> &mut [u8] {
    // SAFETY: as above, and any eight bytes are a float64.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Numbers before a product's values: rows, columns, samples, stated and observed error, then the rows' errors.
const HEAD: usize = 5;

fn write(folder: &Path, limit: u64, path: &Path, key: u128, product: &Product) -> std::io::Result<()> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Product { values, error, row_errors } = product;
    let size = 8 * (HEAD + row_errors.len() + values.data.len()) as u64 + 32;
    if size > limit / 4 {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    make_room(folder, limit - size)?;
    let counts = [values.rows, values.cols, error.samples].map(|n| n as f64);
    let head: Vec<f64> =
        counts.into_iter().chain([error.stated, error.observed]).chain(row_errors.iter().copied()).collect();
    let check = hash_of(&[key, hash(bytes_of(&head)), hash(bytes_of(&values.data))]);
    // Whole or not at all, whoever writes the same at the same time.
    let name = format!("{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = folder.join(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&check.to_le_bytes())?;
        file.write_all(bytes_of(&head))?;
        file.write_all(bytes_of(&values.data))
    });
    let done = written.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

fn read(path: &Path, key: u128, (rows, columns): (usize, usize)) -> Option<Product> {
    let mut file = File::open(path).ok()?;
    let mut check = [0; 16];
    file.read_exact(&mut check).ok()?;
    let mut head = vec![0.0; HEAD + rows];
    file.read_exact(bytes_of_mut(&mut head)).ok()?;
    let mut values = Matrix::zeros(rows, columns);
    file.read_exact(bytes_of_mut(&mut values.data)).ok()?;
    let whole = head[..2] == [rows as f64, columns as f64]
        && check == hash_of(&[key, hash(bytes_of(&head)), hash(bytes_of(&values.data))]).to_le_bytes();
    let error = ReferenceError { samples: head[2] as usize, stated: head[3], observed: head[4] };
    whole.then(|| Product { values, error, row_errors: head[HEAD..].to_vec() })
}

/// Whether a sample of the outputs is as near to exact dot products as is stated.
fn keeps_to(product: &Product, x: &Matrix, weight: &Weight<'_>) -> bool {
    let Product { values, error, .. } = product;
    let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    (0..SAMPLES.min(values.data.len())).into_par_iter().all(|i| {
        let at = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % values.data.len();
        let (r, c) = (at / values.cols, at % values.cols);
        let w: Vec<f64> = (0..weight.cols).map(|k| weight.value(c, k)).collect();
        let scale = norm(x.row(r)) * norm(&w);
        let off = (values.data[at] - weight.dot(c, x.row(r))).abs();
        !scale.is_finite() || off <= error.stated * scale.max(2f64.powi(-900))
    }) && error.holds()
}

/// Removes what was not used for longest until no more than `limit` bytes are left, and what a process that was killed
/// left behind.
fn make_room(folder: &Path, limit: u64) -> std::io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        let age = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        match entry.path().extension().and_then(|e| e.to_str()) {
            Some(SUFFIX) => entries.push((age, data.len(), entry.path())),
            Some("part") if age.elapsed().is_ok_and(|age| age.as_secs() > 3600) => {
                fs::remove_file(entry.path())?;
            }
            _ => {}
        }
    }
    entries.sort();
    let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in entries {
        if total <= limit {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::input::Rng;
    use crate::dtype::E4M3FN;
    use crate::quant::Granularity;

    fn operands() -> (Matrix, Weight<'static>) {
        let mut rng = Rng(1);
        let x = Matrix::new(3, 64, (0..3 * 64).map(|_| rng.normal()).collect());
        let weight = Weight {
            rows: 40,
            cols: 64,
            dtype: E4M3FN,
            codes: (0..40 * 64).map(|_| rng.next_u64() as u8 & 0x77).collect::<Vec<_>>().into(),
            granularity: Granularity::Group(32),
            scales: (0..80).map(|_| 0.5 + rng.unit()).collect::<Vec<_>>().into(),
            zeros: Vec::new().into(),
            global: 1.0,
            column_groups: None,
            magnitudes: false,
        };
        (x, weight)
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect()
    }

    #[test]
    fn what_was_computed_is_read_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let (x, weight) = operands();
        for precision in [Precision::Single, Precision::Double] {
            let first = product_in(folder.path(), LIMIT, &x, &weight, precision);
            let again = product_in(folder.path(), LIMIT, &x, &weight, precision);
            assert_eq!((again.values, again.error), (first.values, first.error));
            assert_eq!(again.row_errors, first.row_errors);
        }
        assert_eq!(entries(folder.path()).len(), 2);
    }

    #[test]
    fn another_bit_of_any_operand_is_another_product() {
        let (x, weight) = operands();
        let base = key(&x, &weight, Precision::Double);
        let mut keys = vec![base, key(&x, &weight, Precision::Single)];
        let mut other = x.clone();
        other.data[191] = -other.data[191];
        keys.push(key(&other, &weight, Precision::Double));
        let changed: [&dyn Fn(&mut Weight<'static>); 6] = [
            &|w| w.codes.to_mut()[2559] ^= 1,
            &|w| w.scales.to_mut()[79] *= 1.0 + f64::EPSILON,
            &|w| w.zeros = vec![0.0; 80].into(),
            &|w| w.global = 2.0,
            &|w| w.magnitudes = true,
            &|w| w.dtype = crate::dtype::E4M3FNUZ,
        ];
        for change in changed {
            let mut weight = weight.clone();
            change(&mut weight);
            keys.push(key(&x, &weight, Precision::Double));
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(key(&x, &weight, Precision::Double), base);
    }

    #[test]
    fn an_entry_that_was_damaged_or_belongs_to_another_key_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (x, weight) = operands();
        let first = product_in(folder.path(), LIMIT, &x, &weight, Precision::Double);
        let path = entries(folder.path()).remove(0);
        let whole = fs::read(&path).unwrap();
        for damage in [0, 20, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[damage] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            assert!(read(&path, key(&x, &weight, Precision::Double), (3, 40)).is_none());
            let again = product_in(folder.path(), LIMIT, &x, &weight, Precision::Double);
            assert_eq!(again.values, first.values);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        fs::write(&path, &whole[..100]).unwrap();
        assert_eq!(product_in(folder.path(), LIMIT, &x, &weight, Precision::Double).values, first.values);
        // Another's entry under this name.
        let mut other = weight.clone();
        other.codes.to_mut()[0] ^= 1;
        let own = key(&x, &other, Precision::Double);
        let name = folder.path().join(format!("{own:032x}.{SUFFIX}"));
        fs::copy(&path, &name).unwrap();
        assert!(read(&name, own, (3, 40)).is_none());
    }

    #[test]
    fn values_that_are_not_the_product_are_refused_though_their_hash_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let (x, weight) = operands();
        let mut wrong = compute(&x, &weight, Precision::Double);
        wrong.values.data.iter_mut().for_each(|value| *value *= 1.01);
        let own = key(&x, &weight, Precision::Double);
        let path = folder.path().join(format!("{own:032x}.{SUFFIX}"));
        write(folder.path(), LIMIT, &path, own, &wrong).unwrap();
        assert!(read(&path, own, (3, 40)).is_some_and(|known| !keeps_to(&known, &x, &weight)));
        let right = compute(&x, &weight, Precision::Double).values;
        assert_eq!(product_in(folder.path(), LIMIT, &x, &weight, Precision::Double).values, right);
    }

    #[test]
    fn the_folder_keeps_to_its_limit_and_what_was_used_last_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (x, weight) = operands();
        let size = 16 + 8 * (HEAD + 3 + 120) as u64;
        let limit = 5 * size;
        let with = |i: usize| Weight { global: 1.0 + i as f64, ..weight.clone() };
        let path = |i| {
            let key = key(&x, &with(i), Precision::Double);
            folder.path().join(format!("{key:032x}.{SUFFIX}"))
        };
        for i in 0..8 {
            product_in(folder.path(), limit, &x, &with(i), Precision::Double);
            // The first is used again and again.
            product_in(folder.path(), limit, &x, &with(0), Precision::Double);
            let total: u64 = entries(folder.path()).iter().map(|p| p.metadata().unwrap().len()).sum();
            assert!(total <= limit, "{total} {limit}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(path(0).exists() && path(7).exists() && !path(1).exists());
    }
}
